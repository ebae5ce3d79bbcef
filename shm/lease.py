"""The reader's side of a block: the lease, and read-only arrays that keep it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .consumer import Consumer
from .lane import Source
from .slab import Slab

_new_array = np.ndarray.__new__


class Lease:
    """The right to read one published block. It ends when the last array over the block has died, in any thread.

    `source` names the lease in a record that forwards the block. There is one Lease for each loan: two would end the
    loan twice. Raises StaleReference if the block is not, or no longer, what the reference says; the caller must then
    release the loan.
    """

    __slots__ = ("__weakref__", "_consumer", "block", "generation", "offset", "slab", "source")

    def __init__(
        self, consumer: Consumer, source: Source, slab: Slab, block: int, generation: int, nbytes: int
    ) -> None:
        self.offset = slab.check(block, generation, nbytes)
        self._consumer = consumer
        self.slab = slab
        self.block = block
        self.generation = generation
        self.source = source  # last: `__del__` ends the lease only if it is set

    def array(
        self, at: int, shape: tuple[int, ...], dtype: np.dtype[Any], strides: tuple[int, ...] | None
    ) -> NDArray[Any]:
        """A read-only array, `at` bytes into the block."""
        base = _new_array(LeasedArray, shape, dtype, self.slab.readable, self.offset + at, strides)
        base.lease, base.at = self, at
        return base.view(np.ndarray)

    def bytes(self) -> memoryview:
        return self.slab.block_bytes(self.block)

    def address(self) -> int:
        return self.slab.segment.address + self.offset

    def abandon(self) -> None:
        """Leaves the loan to the successor of this process, which reads the block again."""
        self.source = None  # type: ignore[assignment]

    def on_loan_ended(self) -> None:
        """The next reader has released the forwarded block. Nothing to do: the lease ends when this object dies."""

    def try_reuse(self, nbytes: int) -> bool:  # noqa: ARG002 - no size is possible
        """Never: the block belongs to another process."""
        return False

    def __del__(self) -> None:
        source = getattr(self, "source", None)
        # A forked child has this object but not its memory.
        if source is not None and self._consumer.returns.is_mapped:
            self._consumer.release(source[1], source[2])


class LeasedArray(np.ndarray):
    """The base of a received array, over the mapping itself; it holds the lease, and by it the mapping.

    numpy keeps it as the base of all further views, because it is not a plain ndarray. An object with an
    `__array_interface__` would cost more, since numpy parses it.
    """

    __slots__ = ("at", "lease")
    lease: Lease
    at: int  # where in its block it begins, in bytes
