"""Blocks of shared memory for the tensors of messages: one mapping, cut into equal blocks, owned by one process."""

from __future__ import annotations

import numpy as np

from .errors import LayoutError, StaleReference
from .layout import LINE_NBYTES, Group, Layout, Word
from .segment import Segment

SLAB = Layout(
    "slab",
    Group(
        "generations",
        "owner",
        (
            Word(
                "generation",
                "odd while the block is out, raised whenever it is taken or comes back",
                "readers of the block",
            ),
        ),
        rows="blocks",
    ),
    Group(
        "payload",
        "owner",
        (
            Word(
                "payload",
                "the blocks, one after the other, each a number of lines",
                "readers, by a read-only mapping",
                nbytes=LINE_NBYTES,
            ),
        ),
        rows="payload_lines",
        aligned=LINE_NBYTES,
    ),
)


class Slab:
    """One slab segment, as its owner or a reader sees it. `block_nbytes` is the size of each block.

    While it lives the memory stays mapped, also when the segment is closed. Raises LayoutError for parameters that cut
    no blocks.
    """

    def __init__(self, identifier: int, segment: Segment) -> None:
        self.identifier = identifier
        self.segment = segment
        self.blocks, lines = segment.placed.rows("generation"), segment.placed.rows("payload")
        self.block_nbytes = lines * LINE_NBYTES // self.blocks
        if lines % self.blocks:
            raise LayoutError(f"slab {identifier}: {lines} lines cannot be cut into {self.blocks} equal blocks")
        self.mapping = segment.mapping
        # The memory of received arrays. The owner also receives arrays in its own slab: those that a peer sends back.
        self.readable = np.asarray(_Fixed(segment)).view(_ReadOnly) if segment.writable else segment.mapping
        self._words, self._bytes = segment.words, segment.bytes
        self._generation = segment.placed.word("generation")
        self._payload = segment.placed["payload"]

    def offset(self, block: int) -> int:
        """Byte offset of a block in the segment."""
        return self._payload + block * self.block_nbytes

    def generation(self, block: int) -> int:
        return self._words[self._generation + block]

    def generation_word(self, block: int) -> tuple[memoryview, int]:
        """Where a block's generation lies: the words of the segment, and its index there."""
        return self._words, self._generation + block

    def raise_generation(self, block: int) -> None:
        """Owner only: makes all earlier references to the block stale."""
        # pairs with: Slab.check
        self._words[self._generation + block] += 1

    def uses(self) -> int:
        """Rises with each block that is taken or comes back."""
        return sum(self._words[self._generation : self._generation + self.blocks])

    def block_bytes(self, block: int) -> memoryview:
        start = self.offset(block)
        return self._bytes[start : start + self.block_nbytes]

    def check(self, block: int, generation: int, nbytes: int) -> int:
        """The offset of a referenced block. Raises StaleReference if it is not, or no longer, that block."""
        # pairs with: Block.take, Block.give_back, Block.try_reuse, Slab.raise_generation
        if (
            block < self.blocks
            and nbytes <= self.block_nbytes
            and generation & 1
            and self._words[self._generation + block] == generation
        ):
            return self._payload + block * self.block_nbytes
        raise self._stale(block, generation, nbytes)

    def _stale(self, block: int, generation: int, nbytes: int) -> StaleReference:
        if block >= self.blocks or nbytes > self.block_nbytes:
            return StaleReference(
                f"slab {self.identifier} has {self.blocks} blocks of {self.block_nbytes} bytes, "
                f"the reference says block {block} with {nbytes}"
            )
        return StaleReference(
            f"block {block} of slab {self.identifier} is at generation {self.generation(block)}, "
            f"the reference says {generation}"
        )


class _Fixed:
    """Memory that numpy cannot be made to write to, although this process may write to it by another mapping object."""

    __slots__ = ("__array_interface__", "_mapping")

    def __init__(self, segment: Segment) -> None:
        self._mapping = memoryview(segment.mapping)
        place = {"data": (segment.address, True), "shape": (segment.nbytes,), "typestr": "|u1"}
        self.__array_interface__ = {**place, "strides": None, "version": 3}


class _ReadOnly(np.ndarray):
    """Such memory as an array of bytes. It is not a plain ndarray: as the base of a view, numpy would keep a plain
    ndarray in place of the array that holds the lease.
    """
