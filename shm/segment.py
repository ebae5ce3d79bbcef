"""One mapping of shared memory: a sealed memfd with a header that says what it is."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import struct
from typing import Self

import numpy as np

from .errors import LayoutError, OutOfMemory
from .layout import HEADER, Layout, Placed
from .limits import require_memory

# linux/mman.h and linux/fcntl.h; Python's modules do not name all of them.
_MADV_POPULATE_WRITE = 23
_SEALS = 0x0001 | 0x0002 | 0x0004  # F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW
_HEADER = struct.Struct("<8Q")
_PREFAULT_FROM = 1 << 20


class Segment:
    """A mapping of one memfd, with the offsets of its layout.

    `bytes` and `words` are views of it, as bytes and as aligned 8-byte words; `address` is where it starts. The memory
    lives until the last process has dropped it; in this process until the last view of it is gone. Any thread.
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

    @classmethod
    def create(cls, layout: Layout, purpose: str, *, populate: bool = False, **parameters: int) -> Self:
        """Makes, reserves and seals a new segment; the caller owns its descriptor.

        Raises OutOfMemory when a limit, or the machine, has not enough memory for it now.
        """
        placed = layout.place(**parameters)
        require_memory(placed.nbytes, purpose)
        fd = os.memfd_create(f"slabwire:{layout.name}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(fd, placed.nbytes)
            mapping = _map(fd, placed.nbytes, writable=True)
            _reserve(fd, mapping, placed.nbytes, purpose, populate=populate)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
        except BaseException:
            os.close(fd)
            raise
        segment = cls(fd, mapping, placed, writable=True)
        values = [parameters[name] for name in layout.parameters]
        values += [0] * (4 - len(values))
        _HEADER.pack_into(segment.bytes, 0, layout.magic, placed.nbytes, os.getpid(), _start_time(), *values)
        return segment

    @classmethod
    def open(cls, fd: int, layout: Layout, *, writable: bool) -> Self:
        """Maps a segment that somebody else made, and takes over its descriptor (also when it raises).

        Raises LayoutError if the descriptor is not a sealed segment of that layout.
        """
        try:
            placed = _placed_of(fd, layout)
            return cls(fd, _map(fd, placed.nbytes, writable=writable), placed, writable=writable)
        except BaseException:
            os.close(fd)
            raise

    def close_descriptor(self) -> None:
        """Gives the descriptor back; the mapping stays."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def close(self) -> None:
        """Lets go of descriptor and mapping. Memory is unmapped when the last array or lease over it is gone."""
        self.close_descriptor()
        del self.words, self.bytes, self.mapping


def _map(fd: int, nbytes: int, *, writable: bool) -> mmap.mmap:
    protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
    mapping = mmap.mmap(fd, nbytes, flags=mmap.MAP_SHARED, prot=protection)
    # A child of an actor must not write after its parent: one writer a line.
    mapping.madvise(mmap.MADV_DONTFORK)
    return mapping


def _reserve(fd: int, mapping: mmap.mmap, nbytes: int, purpose: str, *, populate: bool) -> None:
    """Takes all pages now, so that a full machine is an error here and not a SIGBUS later."""
    try:
        os.posix_fallocate(fd, 0, nbytes)
        if populate and nbytes >= _PREFAULT_FROM:
            _populate(mapping)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.ENOMEM, errno.EFBIG):
            raise
        raise OutOfMemory(f"{purpose}: the kernel refused {nbytes} bytes of shared memory ({error.strerror})") from None


def _populate(mapping: mmap.mmap) -> None:
    try:
        mapping.madvise(_MADV_POPULATE_WRITE)
    except OSError as error:
        # Kernels before 5.14 do not know it; the pages exist, only the page tables are filled later.
        if error.errno != errno.EINVAL:
            raise


def _placed_of(fd: int, layout: Layout) -> Placed:
    nbytes = os.fstat(fd).st_size
    try:
        sealed = fcntl.fcntl(fd, fcntl.F_GET_SEALS) & _SEALS == _SEALS
    except OSError:
        sealed = False
    if not sealed or nbytes < HEADER.row_nbytes:
        raise LayoutError(f"descriptor {fd} is not a segment of slabwire: a sealed memfd of at least {HEADER.row_nbytes} bytes")
    magic, recorded_nbytes, pid, _, *values = _HEADER.unpack(os.pread(fd, _HEADER.size, 0))
    if magic != layout.magic:
        raise LayoutError(
            f"segment made by process {pid} has magic {magic:016x}, {layout.name!r} of this version is {layout.magic:016x}: "
            "peers must run the same version of slabwire"
        )
    placed = layout.place(**dict(zip(layout.parameters, values, strict=False)))
    if placed.nbytes != nbytes or recorded_nbytes != nbytes:
        raise LayoutError(f"segment {layout.name!r} of process {pid} has {nbytes} bytes, its header says {placed.nbytes}")
    return placed


def _start_time() -> int:
    with open("/proc/self/stat") as stat:
        return int(stat.read().rpartition(")")[2].split()[19])
