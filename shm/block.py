"""One block of a slab, as its owner sees it, and the writable arrays over it."""

from __future__ import annotations

from collections import deque
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .layout import LINE_NBYTES, round_up
from .slab import Slab

# Room behind a loaned tensor for the metadata of its message, should that not fit its record.
METADATA_NBYTES = 1024
SMALLEST_BLOCK_NBYTES = 2048


class Home(Protocol):
    """The pool that a block belongs to.

    `dead_views` has a block for each array or payload that has died and is not counted yet; `ledger` is debug mode's.
    """

    dead_views: deque[Block]

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
        self.has_metadata = False  # metadata of a message that may not have been read yet

    def take(self) -> None:
        """Marks the block as out: it belongs to a message or an array."""
        # pairs with: Slab.check
        self.generation = self._words[self._at] = self._words[self._at] + 1
        self.has_metadata = False

    def give_back(self) -> None:
        """Marks the block as free, so that all references to it are stale."""
        self.generation = 0
        # pairs with: Slab.check
        self._words[self._at] += 1

    def try_reuse(self, nbytes: int) -> bool:
        """Takes the block for another loan, with a new generation, after its only loan has ended. False, with nothing
        done, if something else needs the block or its size is not that of `nbytes`.
        """
        if (
            self.lends != 1
            or self.views
            or size_class(nbytes) != self.slab.block_nbytes
            or self.pool.ledger is not None
        ):
            return False
        # pairs with: Slab.check
        self.generation = self._words[self._at] = self._words[self._at] + 2
        self.has_metadata = False
        return True

    def on_loan_ended(self) -> None:
        """One loan of the block has ended."""
        self.lends -= 1
        if not (self.lends or self.views):
            self.pool.reclaim(self)

    def view_died(self) -> None:
        """One array of the owner, or one payload, has died."""
        self.views -= 1
        if not (self.lends or self.views):
            self.pool.reclaim(self)

    def address(self) -> int:
        return self.slab.segment.address + self.start

    def bytes(self) -> memoryview:
        return self.slab.block_bytes(self.index)


class LoanBase:
    """The base of a loaned array. While it or any view of it lives, the block stays out. It may die in any thread."""

    __slots__ = ("__array_interface__", "block")

    def __init__(self, block: Block, interface: dict[str, Any]) -> None:
        self.block = block
        self.__array_interface__ = interface

    def __del__(self) -> None:
        self.block.pool.dead_views.append(self.block)


def loaned(base: LoanBase, dtype: np.dtype[Any]) -> NDArray[Any]:
    """The array over a base; `dtype` may be one that an array interface cannot name."""
    array = np.asarray(base)
    return array if array.dtype == dtype else array.view(dtype)


def loaned_block(array: NDArray[Any]) -> Block | None:
    """The block of a loan or of a view of one; None for any other array."""
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    return base.block if isinstance(base, LoanBase) else None


@lru_cache(maxsize=1024)
def size_class(nbytes: int) -> int:
    """The size of the blocks that serve `nbytes`: four classes to a doubling, so at most a quarter is wasted."""
    if nbytes <= SMALLEST_BLOCK_NBYTES:
        return SMALLEST_BLOCK_NBYTES
    step = 1 << max(0, (nbytes - 1).bit_length() - 3)
    return round_up(round_up(nbytes, step), LINE_NBYTES)
