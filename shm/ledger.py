"""Debug mode: who took each block that is out, at which line, who received it, and whether it stays as it was sent.

Without debug mode there is no ledger, and nothing of this costs anything.
"""

from __future__ import annotations

import logging
import os
import sys
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from .block import Block
from .lease import Lease

logger = logging.getLogger("slabwire")

VARIABLE = "SLABWIRE_DEBUG_BLOCKS"
POISON = 0xDB
# Holders that the text of an error names: the largest ones are nearly always the answer.
_MOST_NAMED = 3
_ROOT = __name__.partition(".")[0]
_OURS = (f"{_ROOT}.shm.", f"{_ROOT}.runtime.")


class Origin(NamedTuple):
    """For which message something was taken: port and request, and its trace. Without a port: for none."""

    port: str = ""
    request: int = 0
    trace: str = ""

    def __str__(self) -> str:
        return f"{self.port} (request {self.request})" if self.request else self.port


# Of an array: its place in the block, its shape, its strides, and its dtype.
_Place = tuple[int, tuple[int, ...], tuple[int, ...], np.dtype[Any]]


@dataclass(slots=True)
class Entry:
    """One block that was taken, or one lease that was received: for whom, at which line (`file:line`), and when.

    `checksums` are those of the arrays in the block that were published.
    """

    origin: Origin
    line: str
    since_ns: int
    checksums: dict[_Place, int] = field(default_factory=dict)

    def __str__(self) -> str:
        """Whose it is and where it was taken."""
        by = str(self.origin) or "its process"
        return f"{by} at {self.line}" if self.line else by


class Ledger:
    """All that is out of one pool, and all that its process has received. One thread, but for leases that end.

    `origin()` says for which message the process works now, `complain` is told of blocks that were written to after
    they had been sent.
    """

    def __init__(
        self,
        origin: Callable[[], Origin] = Origin,
        *,
        complain: Callable[[str], None] = logger.error,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.origin = origin
        self.blocks: dict[Block, Entry] = {}
        self._leases: WeakKeyDictionary[Lease, Entry] = WeakKeyDictionary()
        self._complain = complain
        self.clock = clock

    @classmethod
    def if_wanted(cls) -> Ledger | None:
        """A ledger where the environment asks for debug mode."""
        return cls() if os.environ.get(VARIABLE) == "1" else None

    # -- blocks of the own pool --------------------------------------------------------------------------------------

    def took(self, block: Block) -> None:
        """A block was taken, by the line of user code that runs now."""
        self.blocks[block] = Entry(self.origin(), user_line(), self.clock())

    def sign(self, block: Block, actor: str) -> None:
        """Names the actor of a loan that was made for no message: by a hook, or by a task of its own."""
        entry = self.blocks.get(block)
        if entry is not None and not entry.origin.port:
            entry.origin = Origin(actor)

    def published(self, block: Block, array: NDArray[Any]) -> None:
        """From now on the bytes of a loaned array must stay as they are."""
        entry = self.blocks.get(block)
        if entry is None:
            return
        place = int(array.__array_interface__["data"][0]) - block.address(), array.shape, array.strides, array.dtype
        if place not in entry.checksums:
            entry.checksums[place] = _checksum(array)

    def came_back(self, block: Block) -> None:
        """Nobody has the block any more. Complains if it was written to, and fills it with poison for late readers."""
        entry = self.blocks.pop(block, None)
        if entry is not None and any(_has_changed(block, *each) for each in entry.checksums.items()):
            self._complain(
                f"a block of {block.slab.block_nbytes} bytes was written to after it had been sent: "
                f"a view from before was kept; it was taken by {entry}"
            )
        block.bytes()[:] = bytes([POISON]) * block.slab.block_nbytes

    # -- blocks of others --------------------------------------------------------------------------------------------

    def received(self, lease: Lease, origin: Origin, line: str) -> None:
        """A message came with a block; its arrays hold the lease."""
        self._leases[lease] = Entry(origin, line, self.clock())

    def leases(self) -> list[tuple[Lease, Entry]]:
        """The leases that have not ended."""
        return list(self._leases.items())

    # -- for people --------------------------------------------------------------------------------------------------

    def named(self) -> str:
        """The largest blocks that are out, the oldest first among equals, as the end of a sentence."""
        now = self.clock()
        largest = sorted(self.blocks.items(), key=lambda each: (-each[0].slab.block_nbytes, each[1].since_ns))
        told = [
            f"{block.slab.block_nbytes} bytes for {(now - entry.since_ns) / 1e9:.1f} s by {entry}, {_whose(block)}"
            for block, entry in largest[:_MOST_NAMED]
        ]
        more = len(largest) - len(told)
        return "; ".join(told) + (f"; and {more} more" if more else "")


def _whose(block: Block) -> str:
    if not block.lends:
        return "kept by itself"
    readers = f"lent {block.lends} time{'s' if block.lends > 1 else ''}"
    return f"{readers} and kept by itself" if block.views else readers


def _checksum(array: NDArray[Any]) -> int:
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def _has_changed(block: Block, place: _Place, checksum: int) -> bool:
    at, shape, strides, dtype = place
    array: NDArray[Any] = np.ndarray(shape, dtype, block.slab.mapping, block.start + at, strides)
    return _checksum(array) != checksum


def user_line() -> str:
    """`file:line` of the innermost code that is neither the runtime's nor the standard library's; "" if there is none.

    Actors that come with the package count as users here.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if not _is_inside(frame.f_globals):
            return f"{frame.f_code.co_filename}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


def _is_inside(variables: dict[str, Any]) -> bool:
    spec = variables.get("__spec__")  # knows the name of what runs as __main__
    name = str(spec.name if spec is not None else variables.get("__name__", ""))
    return name.startswith(_OURS) or name.partition(".")[0] in sys.stdlib_module_names
