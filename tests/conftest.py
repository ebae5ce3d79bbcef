"""After every test: no process, no descriptor and no shared memory may be left."""

from __future__ import annotations

import ctypes
import gc
import os
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

_PR_SET_CHILD_SUBREAPER = 36  # prctl(2)
# How long the kernel is given to end processes whose parent has just gone: a leak stays for ever.
_GRACE_S = 10.0


# Workers import the files that their actors are written in, and these import what helps the tests.
_HELPING = [str(Path(__file__).parent / each) for each in ("helpers", "stages", "tls_stages")]
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (*_HELPING, os.environ.get("PYTHONPATH"))))
# Before any test imports ONNX Runtime: the database of its telemetry would count as left behind.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def pytest_configure() -> None:
    """Processes that outlive their parent become children of the test run, where they are seen. Ctrl-C reaches those
    that tests start, also where the run itself was started in the background and ignores it.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # else no status of a process would be known
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    # Of this process alone: tests that run side by side start graphs of the same names.
    os.environ["SLABWIRE_RUN_DIR"] = tempfile.mkdtemp(prefix="slabwire-test-")
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def pytest_unconfigure() -> None:
    shutil.rmtree(os.environ["SLABWIRE_RUN_DIR"], ignore_errors=True)


@dataclass(frozen=True)
class Held:
    """What this process holds at one moment."""

    children: frozenset[int]
    descriptors: Counter[str]
    mappings: Counter[str]
    names: frozenset[str]

    @classmethod
    def now(cls) -> Held:
        return cls(_children(), _descriptors(), _mappings(), frozenset(os.listdir("/dev/shm")))

    def left_since(self, before: Held) -> list[str]:
        processes = [f"process {pid}: {_command_of(pid)}" for pid in sorted(self.children - before.children)]
        descriptors = [f"descriptor of {each}" for each in (self.descriptors - before.descriptors).elements()]
        mappings = [f"mapping of {each}" for each in (self.mappings - before.mappings).elements()]
        names = [f"/dev/shm/{each}" for each in sorted(self.names - before.names)]
        return [*processes, *descriptors, *mappings, *names]


def _pids_below() -> Iterator[int]:
    """Children of every thread of this process, ended ones too."""
    for task in Path("/proc/self/task").iterdir():
        try:
            yield from map(int, (task / "children").read_text().split())
        except FileNotFoundError:
            continue  # the thread has ended meanwhile


def _children() -> frozenset[int]:
    """Living children of every thread; those that have ended, and that nobody here started, are reaped."""
    return frozenset(pid for pid in _pids_below() if not _is_dead(pid))


def _is_dead(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state in "ZX"


def _reap_adopted(known: frozenset[int]) -> None:
    for pid in list(_pids_below()):
        if pid not in known and _is_dead(pid):
            os.waitpid(pid, os.WNOHANG)


def _command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return "ended meanwhile"


def _descriptors() -> Counter[str]:
    targets: Counter[str] = Counter()
    for name in os.listdir("/proc/self/fd"):
        try:
            targets[os.readlink(f"/proc/self/fd/{name}")] += 1
        except OSError:
            continue  # the one that listed the folder
    return targets


def _mappings() -> Counter[str]:
    lines = Path("/proc/self/maps").read_text().splitlines()
    return Counter(line.split(maxsplit=5)[5] for line in lines if "/memfd:slabwire" in line)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    report = yield
    if report.when == "call":
        item.stash[_PASSED] = report.passed
    return report


_PASSED = pytest.StashKey[bool]()


@pytest.fixture(autouse=True)
def nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test that leaves something behind. A test that failed is let off: its traceback holds its objects."""
    gc.collect()
    gc.freeze()  # what is there already is not looked through again: with all libraries that takes 0.1 s
    before = Held.now()
    yield
    if not request.node.stash.get(_PASSED, False):
        return
    give_up = time.monotonic() + _GRACE_S
    gc.collect()
    while left := Held.now().left_since(before):
        if time.monotonic() > give_up:
            pytest.fail("left behind: " + "; ".join(left))
        time.sleep(0.02)
    _reap_adopted(before.children)


@pytest.fixture(autouse=True, scope="module")
def nothing_left_mapped(request: pytest.FixtureRequest) -> Iterator[None]:
    """The same for shared memory of what the tests of a file share: that was there before each of them, and frozen."""
    failed, before = request.session.testsfailed, _mappings()
    yield
    if _mappings() - before:
        gc.unfreeze()
        gc.collect()
    if request.session.testsfailed == failed and (left := _mappings() - before):
        pytest.fail("left mapped: " + "; ".join(left.elements()))
