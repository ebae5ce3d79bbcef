"""Segments: sealed, without a name, guarded by the kernel, and checked before they are believed."""

from __future__ import annotations

import errno
import faulthandler
import fcntl
import mmap
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from slabwire.shm import limits
from slabwire.shm.errors import LayoutError, OutOfMemory
from slabwire.shm.lane import LANE
from slabwire.shm.limits import MemoryLimit
from slabwire.shm.segment import Segment
from slabwire.shm.slab import SLAB, Slab


@pytest.fixture
def segment() -> Iterator[Segment]:
    made = Segment.create(SLAB, "a slab", blocks=2, payload_lines=32)
    yield made
    made.close()


def test_what_one_mapping_writes_another_reads(segment: Segment) -> None:
    other = Segment.open(os.dup(segment.fd), SLAB, writable=False)
    segment.words[segment.placed.word("generation")] = 77
    assert other.words[other.placed.word("generation")] == 77
    assert (other.nbytes, other.placed.places) == (segment.nbytes, segment.placed.places)
    assert segment.address % 4096 == 0
    other.close()
    other.close()


def test_it_can_be_neither_resized_nor_unsealed(segment: Segment) -> None:
    for nbytes in (0, segment.nbytes * 2):
        with pytest.raises(PermissionError):
            os.ftruncate(segment.fd, nbytes)
    with pytest.raises(PermissionError):
        fcntl.fcntl(segment.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)


def test_it_has_no_name_and_its_descriptor_is_not_inherited(segment: Segment) -> None:
    assert os.readlink(f"/proc/self/fd/{segment.fd}") == "/memfd:slabwire:slab (deleted)"
    assert not os.get_inheritable(segment.fd)
    seen = subprocess.run(
        [sys.executable, "-c", "import os; print([os.readlink(e) for e in os.scandir('/proc/self/fd')])"],
        capture_output=True,
        text=True,
        close_fds=False,
        check=False,
    )
    assert "slabwire" not in seen.stdout + seen.stderr


def test_all_its_pages_are_taken_at_once(segment: Segment) -> None:
    big = Segment.create(SLAB, "a slab", blocks=1, payload_lines=1 << 14)
    assert os.fstat(big.fd).st_blocks * 512 >= big.nbytes
    big.close()


def test_a_slab_is_reserved_by_its_owner_alone() -> None:
    slab = Segment.create(SLAB, "a slab", reserve=False, blocks=1, payload_lines=1 << 14)
    assert os.fstat(slab.fd).st_blocks * 512 < slab.nbytes / 100
    owner = Segment.open(os.dup(slab.fd), SLAB, writable=True)
    owner.reserve()
    assert os.fstat(slab.fd).st_blocks * 512 >= slab.nbytes
    owner.close()
    slab.close()


def _fork_and(work: Callable[[], object]) -> int:
    """The signal that ends a forked child which does `work`, or 0."""
    pid = os.fork()
    if pid == 0:
        faulthandler.disable()  # the death is meant
        try:
            work()
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def test_a_forked_child_has_no_access(segment: Segment) -> None:
    assert _fork_and(lambda: None) == 0
    assert _fork_and(lambda: segment.words[0]) == signal.SIGSEGV
    assert _fork_and(lambda: segment.words.__setitem__(1, 5)) == signal.SIGSEGV
    assert segment.is_mapped
    assert _fork_and(lambda: os.kill(os.getpid(), 0 if segment.is_mapped else signal.SIGUSR1)) == signal.SIGUSR1


def test_a_reader_cannot_write_through_python(segment: Segment) -> None:
    reader = Segment.open(os.dup(segment.fd), SLAB, writable=False)
    with pytest.raises(TypeError, match="read-only"):
        reader.words[0] = 1
    reader.close()


WRITE = """
import ctypes, sys
from slabwire.shm.segment import Segment
from slabwire.shm.slab import SLAB
segment = Segment.open(int(sys.argv[1]), SLAB, writable=sys.argv[2] == "yes")
print("mapped", flush=True)
ctypes.memset(segment.address + segment.placed["payload"], 65, 1)
print("written", flush=True)
"""


@pytest.mark.parametrize(
    ("writable", "status", "said"), [("no", -signal.SIGSEGV, "mapped\n"), ("yes", 0, "mapped\nwritten\n")]
)
def test_the_kernel_stops_a_reader_that_writes_past_python(
    segment: Segment, writable: str, status: int, said: str
) -> None:
    command = [sys.executable, "-c", WRITE, str(segment.fd), writable]
    ran = subprocess.run(command, pass_fds=[segment.fd], capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stdout) == (status, said)
    assert segment.bytes[segment.placed["payload"]] == (65 if writable == "yes" else 0)


def _memfd(content: bytes, *, seals: int) -> int:
    fd = os.memfd_create("foreign", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(fd, content)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


ALL_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW


def _header(magic: int, nbytes: int, *parameters: int) -> bytes:
    return struct.pack("<8Q", magic, nbytes, 1, 1, *parameters, *[0] * (4 - len(parameters)))


def _sealed(magic: int, nbytes: int, recorded: int, *parameters: int) -> int:
    return _memfd(_header(magic, recorded, *parameters).ljust(nbytes, b"\0"), seals=ALL_SEALS)


def _socket() -> int:
    left, right = socket.socketpair()
    right.close()
    return left.detach()


GOOD = SLAB.place(blocks=2, payload_lines=32).nbytes
HUGE = (1 << 64) - 1
FOREIGN: dict[str, tuple[Callable[[], int], str]] = {
    "a socket": (_socket, "not a segment"),
    "a file": (lambda: os.open(__file__, os.O_RDONLY), "not a segment"),
    "empty": (lambda: _memfd(b"", seals=ALL_SEALS), "not a segment"),
    "unsealed": (lambda: _memfd(_header(SLAB.magic, GOOD, 2, 32).ljust(GOOD, b"\0"), seals=0), "not a segment"),
    "may shrink": (
        lambda: _memfd(_header(SLAB.magic, GOOD, 2, 32).ljust(GOOD, b"\0"), seals=fcntl.F_SEAL_GROW),
        "not a segment",
    ),
    "shorter than a header": (lambda: _memfd(b"x" * 63, seals=ALL_SEALS), "not a segment"),
    "another layout": (lambda: _sealed(LANE.magic, GOOD, GOOD, 2, 32), "peers must run the same version"),
    "truncated": (lambda: _sealed(SLAB.magic, GOOD // 2, GOOD, 2, 32), "its header says"),
    "wrong size in the header": (lambda: _sealed(SLAB.magic, GOOD, GOOD + 8, 2, 32), "its header says"),
    "no parameters": (lambda: _sealed(SLAB.magic, GOOD, GOOD), "takes positive"),
    "huge parameters": (lambda: _sealed(SLAB.magic, GOOD, GOOD, HUGE, HUGE), "its header says"),
    "one huge parameter": (lambda: _sealed(SLAB.magic, GOOD, GOOD, 2, 1 << 62), "its header says"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_descriptor_is_refused_and_closed(name: str) -> None:
    make, complaint = FOREIGN[name]
    fd = make()
    with pytest.raises(LayoutError, match=complaint):
        Segment.open(fd, SLAB, writable=True)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_a_slab_whose_header_cuts_no_blocks_is_refused() -> None:
    nbytes = SLAB.place(blocks=3, payload_lines=4).nbytes
    segment = Segment.open(_sealed(SLAB.magic, nbytes, nbytes, 3, 4), SLAB, writable=False)
    with pytest.raises(LayoutError, match="4 lines cannot be cut into 3 equal blocks"):
        Slab(1, segment)
    segment.close()


def test_a_read_only_descriptor_cannot_be_opened_for_writing(segment: Segment) -> None:
    fd = os.open(f"/proc/self/fd/{segment.fd}", os.O_RDONLY | os.O_CLOEXEC)
    with pytest.raises(LayoutError, match="does not allow to write"):
        Segment.open(fd, SLAB, writable=True)


def test_limits_are_read_before_any_memory_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cgroup's limit is no error of a call: the kernel would kill somebody instead."""
    monkeypatch.setattr(limits, "memory_limits", lambda root: [MemoryLimit(1000, "memory.max = 5000 bytes")])
    monkeypatch.setattr(os, "memfd_create", lambda *_: pytest.fail("memory was taken"))
    with pytest.raises(OutOfMemory, match=r"slab of x needs 128\d bytes, but memory.max = 5000 bytes leaves 1000"):
        Segment.create(SLAB, "slab of x", blocks=1, payload_lines=8)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.ENOMEM, errno.EFBIG])
def test_a_refusal_of_the_kernel_names_the_request_and_the_tightest_limit(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(fd: int, at: int, nbytes: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(
        OutOfMemory, match=rf"slab of x needs 128\d bytes.*{os.strerror(number)}.*limit is .*leaves \d+"
    ):
        Segment.create(SLAB, "slab of x", blocks=1, payload_lines=8)


def test_other_errors_of_the_kernel_are_not_renamed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(OSError, match="broken"):
        Segment.create(SLAB, "slab of x", blocks=1, payload_lines=8)


def test_a_machine_that_is_full_when_pages_are_filled_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    segment = Segment.create(SLAB, "a slab", blocks=1, payload_lines=1 << 14)

    class Full:
        def madvise(self, advice: int, start: int, length: int) -> None:
            raise OSError(errno.ENOMEM, "no memory")

    mapping: mmap.mmap = segment.mapping
    segment.mapping = Full()  # type: ignore[assignment]
    with pytest.raises(OutOfMemory, match="no memory"):
        segment.reserve()
    segment.mapping = mapping
    segment.close()
