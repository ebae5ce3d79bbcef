"""One mapping of shared memory: a sealed memfd with a header that says what it is."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import struct
from collections.abc import Mapping
from typing import NamedTuple, Self
from weakref import WeakSet, WeakValueDictionary

import numpy as np

from .errors import LayoutError, OutOfMemory
from .layout import HEADER, MOST_PARAMETERS, WORD_NBYTES, Layout, Placed
from .limits import memory_limits, require_memory

# linux/mman.h; Python's module does not name them.
_MADV_POPULATE_WRITE = 23
_MAP_FIXED_NOREPLACE = 0x100000
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
_NO_MEMORY = (errno.ENOSPC, errno.ENOMEM, errno.EFBIG)
_HEADER = struct.Struct("<8Q")
_PREFAULT_FROM = 1 << 20


_places: WeakValueDictionary[int, mmap.mmap] = WeakValueDictionary()  # by address: every mapping of this process
_segments: WeakSet[Segment] = WeakSet()
_libc = ctypes.CDLL(None)
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
_HOLD = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_FIXED_NOREPLACE


def _leave_memory() -> None:
    """In a forked child: none of the memory is there, and nothing else may come to lie in its places, since what the
    child has of the mappings unmaps these places when it dies.
    """
    for address, mapping in _places.items():
        _libc.mmap(address, len(mapping), 0, _HOLD, -1, 0)
    for segment in _segments:
        segment.is_mapped = False


os.register_at_fork(after_in_child=_leave_memory)


class Stamp(NamedTuple):
    """What the header of a segment says of its layout: magic, and its parameters in the order of their names."""

    magic: int
    parameters: tuple[int, ...]

    @classmethod
    def of(cls, layout: Layout, parameters: Mapping[str, int]) -> Self:
        return cls(layout.magic, tuple(parameters[name] for name in layout.parameters))


class Segment:
    """A mapping of one memfd, with the offsets of its layout.

    `bytes` and `words` are views of it, as bytes and as aligned 8-byte words; `address` is where it starts. The memory
    lives until the last process has dropped it; in this process until the last view of it is gone. Any thread.
    `is_mapped` is False in a child that was forked: the memory is its parent's alone, and touching it ends the child.
    """

    def __init__(self, fd: int, mapping: mmap.mmap, placed: Placed, *, writable: bool) -> None:
        self.fd = fd
        self.mapping = mapping
        self.placed = placed
        self.nbytes = placed.nbytes
        self.writable = writable
        self.bytes = memoryview(mapping)
        self.words = self.bytes.cast("Q")
        self.address = int(np.frombuffer(mapping, np.uint8).ctypes.data)
        self.is_mapped = True
        _places[self.address] = mapping
        _segments.add(self)

    @classmethod
    def create(
        cls, layout: Layout, purpose: str, *, reserve: bool = True, stamp: Stamp | None = None, **parameters: int
    ) -> Self:
        """Makes, reserves and seals a new segment; the caller owns its descriptor.

        With `reserve=False` its pages are left for its owner to take, on the owner's own core and node. Whoever makes
        it for a layout of the same size that only others know gives the `stamp` of that one. Raises OutOfMemory when a
        limit, or the machine, has not enough memory for it now.
        """
        magic, values = stamp or Stamp.of(layout, parameters)
        placed = layout.place(**parameters)
        require_memory(placed.nbytes, purpose)
        fd = os.memfd_create(f"slabwire:{layout.name}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            segment = cls(fd, _sized(fd, placed.nbytes, purpose, reserve=reserve), placed, writable=True)
            shown = (*values, *[0] * (MOST_PARAMETERS - len(values)))
            _HEADER.pack_into(segment.bytes, 0, magic, placed.nbytes, os.getpid(), _start_time(), *shown)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
        except BaseException:
            os.close(fd)
            raise
        return segment

    @classmethod
    def open(cls, fd: int, layout: Layout, *, writable: bool) -> Self:
        """Maps a segment that somebody else made, and takes over its descriptor (also when it raises).

        Raises LayoutError if the descriptor is not a sealed segment of that layout, OutOfMemory if it cannot be mapped.
        """
        try:
            placed = _placed_of(fd, layout)
            return cls(fd, _mapped(fd, placed.nbytes, layout.name, writable=writable), placed, writable=writable)
        except BaseException:
            os.close(fd)
            raise

    def reserve(self, start: int = 0, nbytes: int | None = None) -> None:
        """Owner, while it has the descriptor: takes all pages, or those of one range of bytes, and fills its page
        tables. Raises OutOfMemory.
        """
        nbytes = self.nbytes - start if nbytes is None else nbytes
        try:
            os.posix_fallocate(self.fd, start, nbytes)
        except OSError as error:
            raise _refused(f"segment {self.placed.layout.name}", nbytes, error) from None
        if self.nbytes >= _PREFAULT_FROM:
            self.populate(start, nbytes)

    def populate(self, start: int = 0, nbytes: int | None = None) -> None:
        """Owner: fills the page tables for one range of bytes, or for all, by taking what pages there are not yet.
        Raises OutOfMemory.
        """
        nbytes = self.nbytes - start if nbytes is None else nbytes
        first = start - start % mmap.PAGESIZE
        try:
            self.mapping.madvise(_MADV_POPULATE_WRITE, first, start + nbytes - first)
        except OSError as error:
            # Kernels before 5.14 do not know it; the pages are taken later, when they are touched.
            if error.errno != errno.EINVAL:
                raise _refused(f"segment {self.placed.layout.name}", nbytes, error) from None

    def unmap(self) -> None:
        """Lets go of the mapping alone: for a process that only holds a segment, and looks by `load`."""
        if "mapping" in self.__dict__:
            del self.words, self.bytes, self.mapping

    def load(self, name: str) -> int:
        """The word `name` (of row 0), read by the descriptor: also where the segment is not mapped."""
        return int.from_bytes(os.pread(self.fd, WORD_NBYTES, self.placed[name]), "little")

    def close_descriptor(self) -> None:
        """Gives the descriptor back; the mapping stays."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def close(self) -> None:
        """Lets go of descriptor and mapping. Memory is unmapped when the last array or lease over it is gone."""
        self.close_descriptor()
        self.unmap()


def _map(fd: int, nbytes: int, *, writable: bool) -> mmap.mmap:
    protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
    mapping = mmap.mmap(fd, nbytes, flags=mmap.MAP_SHARED, prot=protection)
    # A child of an actor must not write after its parent: one writer a line.
    mapping.madvise(mmap.MADV_DONTFORK)
    return mapping


def _mapped(fd: int, nbytes: int, purpose: str, *, writable: bool) -> mmap.mmap:
    try:
        return _map(fd, nbytes, writable=writable)
    except PermissionError:
        raise LayoutError(f"the descriptor of segment {purpose!r} does not allow to write") from None
    except OSError as error:
        raise _refused(f"mapping segment {purpose!r}", nbytes, error) from None


def _sized(fd: int, nbytes: int, purpose: str, *, reserve: bool) -> mmap.mmap:
    """A mapping of that size; `reserve` takes all pages now: a full machine is an error here and no SIGBUS later."""
    try:
        os.ftruncate(fd, nbytes)
        if reserve:
            os.posix_fallocate(fd, 0, nbytes)
        return _map(fd, nbytes, writable=True)
    except OSError as error:
        raise _refused(purpose, nbytes, error) from None


def _refused(purpose: str, nbytes: int, error: OSError) -> Exception:
    """What to raise: OutOfMemory with the nearest limit, or the error itself if it is about something else."""
    if error.errno not in _NO_MEMORY:
        return error
    limit = next(iter(memory_limits()), None)
    nearest = f"; the tightest limit is {limit.setting}, which leaves {limit.available_nbytes}" if limit else ""
    return OutOfMemory(
        f"{purpose} needs {nbytes} bytes of shared memory, which the kernel refused ({error.strerror}){nearest}; "
        "raise that limit, or ask for less (memory_bytes= of graph.add)"
    )


def _placed_of(fd: int, layout: Layout) -> Placed:
    try:
        sealed = fcntl.fcntl(fd, fcntl.F_GET_SEALS) & _SEALS == _SEALS
    except OSError:
        sealed = False
    nbytes = os.fstat(fd).st_size  # after the seals: from there on it cannot change
    if not sealed or nbytes < HEADER.row_nbytes:
        raise LayoutError(
            f"descriptor {fd} is not a segment of slabwire: a sealed memfd of at least {HEADER.row_nbytes} bytes"
        )
    magic, recorded_nbytes, pid, _, *values = _HEADER.unpack(os.pread(fd, _HEADER.size, 0))
    if magic != layout.magic:
        raise LayoutError(
            f"segment made by process {pid} has magic {magic:016x}, {layout.name!r} of this version is "
            f"{layout.magic:016x}: peers must run the same version of slabwire"
        )
    placed = layout.place(**dict(zip(layout.parameters, values, strict=False)))
    if placed.nbytes != nbytes or recorded_nbytes != nbytes:
        raise LayoutError(
            f"segment {layout.name!r} of process {pid} has {nbytes} bytes, its header says {placed.nbytes}"
        )
    return placed


def _start_time() -> int:
    with open("/proc/self/stat") as stat:
        return int(stat.read().rpartition(")")[2].split()[19])
