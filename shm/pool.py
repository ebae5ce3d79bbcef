"""All slabs of one process, as size classes of blocks with private free lists."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .block import METADATA_NBYTES, Block, LoanBase, loaned, size_class
from .errors import OutOfMemory
from .layout import LINE_NBYTES, round_up
from .ledger import VARIABLE, Ledger
from .slab import Slab
from .tensor import interface_of, readable_dtype

_FIRST_SLAB_NBYTES = 1 << 20
_MOST_BLOCKS = 64
_LEAST_BLOCKS = 4
# While few blocks are out, every take looks for ended loans. Later, a look comes after as many takes as an eighth of
# the blocks that are out: a look costs more the more blocks are out, so its cost per take stays the same. Looking often
# while few are out keeps few blocks in use, which stay in cache.
_BLOCKS_A_LOOK = 8


class Pool:
    """All slabs of one process, as size classes with private free lists. One thread.

    `grow(block_nbytes, blocks)` makes one more slab and returns it, `shrink(slab)` gives one back, `reap()` collects
    ended leases. The newest freed block is taken first, because it is still in cache. A `ledger` (made by default where
    SLABWIRE_DEBUG_BLOCKS=1) knows who took each block that is out, and poisons the blocks that come back.
    """

    def __init__(
        self,
        grow: Callable[[int, int], Slab],
        reap: Callable[[], None],
        limit_nbytes: int,
        *,
        shrink: Callable[[int], None] = lambda _: None,
        ledger: Ledger | None = None,
    ) -> None:
        self._grow = grow
        self._shrink = shrink
        self._reap = reap
        self.limit_nbytes = limit_nbytes
        self.slabs: dict[int, Slab] = {}
        self._free: dict[int, list[Block]] = {}
        self.dead_views: deque[Block] = deque()
        self.nbytes = 0
        self.used_nbytes = 0
        self.blocks_out = 0
        self.grown = self.trimmed = 0  # slabs that were added, and that were given back
        self._takes_until_look = 0
        self.ledger = ledger or Ledger.if_wanted()

    def stats(self) -> dict[str, int]:
        return {
            "slabs": len(self.slabs),
            "nbytes": self.nbytes,
            "used_nbytes": self.used_nbytes,
            "out": self.blocks_out,
            "free": sum(map(len, self._free.values())),
            "grown": self.grown,
            "trimmed": self.trimmed,
        }

    def join(self, slab: Slab, out: dict[int, Block] | None = None) -> None:
        """Adds a slab, all of whose blocks are free but for those in `out`, by index."""
        self.slabs[slab.identifier] = slab
        self.nbytes += slab.segment.nbytes
        free = self._free.setdefault(slab.block_nbytes, [])
        for index in reversed(range(slab.blocks)):
            if out and index in out:
                out[index].generation = slab.generation(index)
                self.blocks_out += 1
                self.used_nbytes += slab.block_nbytes
                continue
            if slab.generation(index) % 2:
                slab.raise_generation(index)  # a predecessor died with it
            free.append(Block(self, slab, index))

    def take(self, nbytes: int) -> Block:
        """A free block of at least `nbytes`. Raises OutOfMemory when the pool may not grow to hold it."""
        size = size_class(nbytes)
        self._takes_until_look -= 1
        if self._takes_until_look <= 0 or not self._free.get(size):
            self._takes_until_look = self.blocks_out // _BLOCKS_A_LOOK
            if self.blocks_out:
                self._reap()
        if self.dead_views:
            self.collect()
        block = (self._free.get(size) or self._more(size)).pop()
        block.take()
        self.blocks_out += 1
        self.used_nbytes += block.slab.block_nbytes
        if self.ledger is not None:
            self.ledger.took(block)
        return block

    def loan(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """A writable array in a block of its own, uninitialised, aligned to 128 bytes."""
        return self.loan_many([(shape, dtype)])[0]

    def loan_many(self, tensors: Sequence[tuple[tuple[int, ...], DTypeLike]]) -> list[NDArray[Any]]:
        """Writable arrays of these shapes and dtypes, all in one block, each aligned to 128 bytes."""
        kinds = [(shape, readable_dtype(np.dtype(dtype))) for shape, dtype in tensors]
        if not kinds:
            return []
        starts = [0]
        for shape, kind in kinds:
            starts.append(round_up(starts[-1] + math.prod(shape) * kind.itemsize, LINE_NBYTES))
        block = self.take(starts[-1] + METADATA_NBYTES)
        address = block.address()
        block.views = len(kinds)
        # All bases are made before the first array: if numpy refuses a shape, the block comes back as the bases die.
        bases = [
            LoanBase(block, interface_of(address + at, *each, writable=True))
            for at, each in zip(starts, kinds, strict=False)
        ]
        return [loaned(base, kind) for base, (_, kind) in zip(bases, kinds, strict=True)]

    def collect(self) -> None:
        """Counts the loaned arrays and the payloads that have died since the last call."""
        while self.dead_views:
            self.dead_views.popleft().view_died()

    def reclaim(self, block: Block) -> None:
        """Frees a block if nothing needs it any more. Idempotent: a block that is free twice would be lent twice."""
        if block.lends or block.views or not block.generation:
            return
        block.give_back()
        size = block.slab.block_nbytes
        if self.ledger is not None:
            self.ledger.came_back(block)
        self.blocks_out -= 1
        self.used_nbytes -= size
        free = self._free.get(size)
        if free is not None:  # else the pool was closed
            free.append(block)

    def _more(self, size: int) -> list[Block]:
        """Free blocks of a new slab; if the pool cannot grow, larger free blocks."""
        try:
            try:
                return self._join_larger(size)
            except OutOfMemory:
                if not self._give_back_idle(size):
                    raise
                return self._join_larger(size)
        except OutOfMemory as error:
            larger = min((each for each, free in self._free.items() if each > size and free), default=0)
            if not larger:
                raise OutOfMemory(f"{error}; {self._holders()}") from None
            return self._free[larger]

    def _holders(self) -> str:
        """Who holds the blocks that are out, for the text of an error."""
        if self.ledger is None:
            return f"`slabwire leases` shows who has blocks, {VARIABLE}=1 also which lines took them"
        return f"out are {self.ledger.named() or 'none'}"

    def _give_back_idle(self, size: int) -> bool:
        """Gives back idle slabs of other sizes, so that this size may grow; True if there were any."""
        idle = [slab for slab in self.slabs.values() if slab.block_nbytes != size and self.is_idle(slab)]
        for slab in idle:
            self.part_with(slab)
        return bool(idle)

    def is_idle(self, slab: Slab) -> bool:
        """Whether all its blocks are free."""
        return sum(block.slab is slab for block in self._free[slab.block_nbytes]) == slab.blocks

    def take_back(self) -> None:
        """Takes back all blocks whose loans and arrays have ended."""
        self._reap()
        self.collect()

    def part_with(self, slab: Slab) -> None:
        """Gives back a slab that is idle."""
        size = slab.block_nbytes
        self._free[size] = [block for block in self._free[size] if block.slab is not slab]
        del self.slabs[slab.identifier]
        self.nbytes -= slab.segment.nbytes
        self.trimmed += 1
        self._shrink(slab.identifier)

    def _join_larger(self, size: int) -> list[Block]:
        held = sum(slab.blocks for slab in self.slabs.values() if slab.block_nbytes == size)
        blocks = held or min(_MOST_BLOCKS, max(_LEAST_BLOCKS, _FIRST_SLAB_NBYTES // size))
        while blocks > 1 and self.nbytes + blocks * size > self.limit_nbytes:
            blocks //= 2
        if self.nbytes + blocks * size > self.limit_nbytes:
            raise OutOfMemory(
                f"a block of {size} bytes: {self.used_nbytes} of {self.nbytes} bytes of this process's slabs are in "
                f"use and its limit of {self.limit_nbytes} does not let them grow; keep fewer arrays, or give an actor "
                "more with memory_bytes= of graph.add"
            )
        self.join(self._grow_at_most(size, blocks))
        self.grown += 1
        return self._free[size]

    def _grow_at_most(self, size: int, blocks: int) -> Slab:
        """A slab of that many blocks, or of as many as the machine has room for."""
        while True:
            try:
                return self._grow(size, blocks)
            except OutOfMemory:
                if blocks == 1:
                    raise
                blocks //= 2

    def close(self) -> None:
        """Lets go of all slabs; a mapping goes when the last array over it has died."""
        for slab in self.slabs.values():
            slab.segment.close_descriptor()
        self.slabs.clear()
        self._free.clear()
        self.dead_views.clear()
        if self.ledger is not None:
            self.ledger.blocks.clear()
