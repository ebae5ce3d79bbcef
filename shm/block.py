"""One block of a slab that is out, as its owner sees it."""

from __future__ import annotations

from collections import deque
from functools import lru_cache
from typing import Any, Protocol

from .layout import LINE_NBYTES, round_up
from .slab import Slab

# Room behind a loaned tensor for the metadata of its message, should that not fit its record.
METADATA_NBYTES = 1024
SMALLEST_BLOCK_NBYTES = 2048


class Home(Protocol):
    """The pool that a block belongs to. `unviewed` are blocks whose last array has died; `ledger` is debug mode's."""

    unviewed: deque[Block]

    @property
    def ledger(self) -> Any: ...

    def reclaim(self, block: Block) -> None: ...


class Block:
    """One block that is out: it comes back when its owner's own array and all leases of it are gone."""

    __slots__ = ("_at", "_words", "generation", "has_metadata", "index", "lends", "pool", "slab", "start", "views")

    def __init__(self, pool: Home, slab: Slab, index: int) -> None:
        self.pool = pool
        self.slab = slab
        self.index = index
        self.start = slab.offset(index)  # in bytes, in its segment
        self._words, self._at = slab.generation_word(index)
        self.generation = 0
        self.lends = 0
        self.views = 0  # arrays of its owner, and payloads that wait
        self.has_metadata = False  # of a message that may not have been read yet

    def take(self) -> None:
        """It is out from now on."""
        # pairs with: Slab.check
        self.generation = self._words[self._at] = self._words[self._at] + 1
        self.has_metadata = False

    def give_back(self) -> None:
        """It is free from now on: all references to it are stale."""
        self.generation = 0
        self._words[self._at] += 1  # pairs with: Slab.check

    def renew(self, nbytes: int) -> bool:
        """Its only loan has ended: whether it is out for another one from now on, with a new generation."""
        if (
            self.lends != 1
            or self.views
            or size_class(nbytes) != self.slab.block_nbytes
            or self.pool.ledger is not None
        ):
            return False
        self.generation = self._words[self._at] = self._words[self._at] + 2  # pairs with: Slab.check
        self.has_metadata = False
        return True

    def returned(self) -> None:
        """One lease has ended."""
        self.lends -= 1
        if not (self.lends or self.views):
            self.pool.reclaim(self)

    def unviewed(self) -> None:
        """One array of the owner, or one payload, needs it no more."""
        self.views -= 1
        if not (self.lends or self.views):
            self.pool.reclaim(self)

    def address(self) -> int:
        return self.slab.segment.address + self.start

    def bytes(self) -> memoryview:
        return self.slab.block_bytes(self.index)


@lru_cache(maxsize=1024)
def size_class(nbytes: int) -> int:
    """The size of the blocks that serve `nbytes`: four classes to a doubling, so at most a quarter is wasted."""
    if nbytes <= SMALLEST_BLOCK_NBYTES:
        return SMALLEST_BLOCK_NBYTES
    step = 1 << max(0, (nbytes - 1).bit_length() - 3)
    return round_up(round_up(nbytes, step), LINE_NBYTES)
