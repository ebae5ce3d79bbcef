"""The keys and values of the sequences that a model works on: one slot each, in one segment of shared memory."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ....shm.errors import OutOfMemory
from ....shm.layout import LINE_NBYTES, Group, Layout, Word
from ....shm.limits import require_memory
from ....shm.segment import Segment
from ..model_file.architecture import Architecture

KEYS_AND_VALUES = Layout(
    "keys_and_values",
    Group(
        "slots",
        "language model",
        (
            Word(
                "lines",
                "float32 by layer (keys, then values), slot, head, position and component",
                "language model",
                nbytes=LINE_NBYTES,
            ),
        ),
        rows="count",
        aligned=LINE_NBYTES,
    ),
)

# A slot takes its memory in steps of so many tokens, as its sequence grows: 12 MB of SmolLM2's 46 KB a token. All
# slots at full length would be 755 MB, which few conversations need.
STEP_TOKENS = 256


class Slots:
    """`count` slots of `context` tokens. One thread.

    `array` is float32 [2 * layers, slots, heads, context, head_dim]: keys of layer i lie at 2 i, its values at 2 i + 1.
    The sequences' places in it are bound as past and present of the network, which writes where it reads.
    """

    def __init__(self, architecture: Architecture, count: int, context: int) -> None:
        self.count = count
        self.context = context
        shape = (2 * architecture.layers, count, architecture.kv_heads, context, architecture.head_dim)
        lines = -(-int(np.prod(shape)) * 4 // LINE_NBYTES)
        self._segment = Segment.create(
            KEYS_AND_VALUES, f"{count} slots of {context} tokens", reserve=False, count=lines
        )
        flat = np.frombuffer(self._segment.mapping, np.float32, int(np.prod(shape)), self._segment.placed["lines"])
        self.array: NDArray[np.float32] = flat.reshape(shape)
        self._held = [0] * count

    @property
    def nbytes_held(self) -> int:
        """Of memory taken so far."""
        return sum(self._held) * self.array[:, 0, :, 0].nbytes

    def address(self, tensor: int, slot: int) -> int:
        """Where the rows of a slot begin in one of the tensors."""
        return int(self.array[tensor, slot].ctypes.data)

    def hold(self, slot: int, tokens: int) -> None:
        """Makes sure that the slot has memory for so many tokens. Raises OutOfMemory."""
        while self._held[slot] < tokens:
            first = self._held[slot]
            end = min(first + STEP_TOKENS, self.context)
            try:
                self._reserve(slot, first, end)
            except OutOfMemory as error:
                raise OutOfMemory(
                    f"slot {slot} cannot grow to {end} tokens: {error.args[0].partition(';')[0]}; give the model fewer "
                    "slots= or a smaller context=, or the machine more memory"
                ) from None
            self._held[slot] = end

    def _reserve(self, slot: int, first: int, end: int) -> None:
        rows = self.array[:, slot, :, first:end]
        require_memory(rows.nbytes, "its next step")
        for tensor in rows:
            for head in tensor:
                self._segment.reserve(int(head.ctypes.data) - self._segment.address, head.nbytes)

    def load(self, slot: int, first: int, page: NDArray[np.float32], tokens: int) -> None:
        """Copies the first `tokens` rows of a page, float32 [2 * layers, heads, rows, head_dim], to `first` on."""
        self.hold(slot, first + tokens)
        self.array[:, slot, :, first : first + tokens] = page[:, :, :tokens]

    def save(self, slot: int, first: int, tokens: int, page: NDArray[np.float32]) -> None:
        """Copies the rows of `tokens` positions from `first` on to the beginning of a page. Its rest becomes zeros: it
        is not what its block held for somebody else.
        """
        page[:, :, :tokens] = self.array[:, slot, :, first : first + tokens]
        page[:, :, tokens:] = 0

    def close(self) -> None:
        """Gives the memory back; nothing may use it any more."""
        del self.array
        self._segment.close()
