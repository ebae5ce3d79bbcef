"""Continuous batching: sequences wait for a slot, take their prompts in by chunks, and decode all in one call.

No I/O and no clock: whoever drives it calls `step` while there is work, and tells it what comes and goes between steps.
"""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from ..text.tokenizer import Tokenizer
from .network import Network
from .sequence import Output, Sequence
from .slots import Slots

# Of a prompt, taken in by one call. From 16 on a chunk runs at full speed; while others wait for their next token it is
# short, so that they stall for a few tokens' time and not for the whole prompt.
CHUNK = 64
CHUNK_BESIDE_OTHERS = 16
# Fewer run other kernels, which round differently: what a chunk gives must not depend on where it was cut.
SMALLEST_CHUNK = 2


class Engine:
    """One thread. With `exact` an answer does not depend, bit by bit, on how many others are made beside it.

    A single row may run another kernel than several: `exact` never decodes one alone, which costs it some speed.
    """

    def __init__(self, network: Network, slots: Slots, tokenizer: Tokenizer, *, exact: bool = False) -> None:
        self._network = network
        self.slots = slots
        self._tokenizer = tokenizer
        self._least = min(2, slots.count) if exact else 1
        self._waiting: deque[Sequence] = deque()
        self._seated: dict[int, Sequence] = {}
        self._turn = 0  # the slot after the one whose prompt had the last chunk

    @property
    def has_work(self) -> bool:
        """Whether `step` would get anywhere."""
        could_seat = len(self._seated) < self.slots.count and any(not each.held for each in self._waiting)
        return could_seat or any(not each.held for each in self._seated.values())

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def running(self) -> int:
        return len(self._seated)

    def admit(self, sequence: Sequence) -> None:
        """Queues a sequence, whose prompt and limit must fit a slot."""
        self._waiting.append(sequence)

    def seat(self) -> list[Sequence]:
        """Gives free slots, the lowest first, to those that have waited longest; returns who got one."""
        seated = []
        for slot in range(self.slots.count):
            if self._waiting and slot not in self._seated:
                sequence = self._seated[slot] = self._waiting.popleft()
                sequence.slot = slot
                seated.append(sequence)
        return seated

    def load(self, sequence: Sequence, rows: NDArray[np.float32], tokens: int) -> None:
        """Copies keys and values of the next `tokens` tokens of its prompt to the slot of a sequence that is held.

        The last tokens of the prompt are always computed, so that the logits are the same. Raises OutOfMemory.
        """
        tokens = min(tokens, len(sequence.prompt) - SMALLEST_CHUNK - sequence.done)
        if tokens > 0:
            self.slots.load(sequence.slot, sequence.done, rows, tokens)
            sequence.done += tokens
            sequence.cached = sequence.done

    def cancel(self, sequence: Sequence) -> None:
        """Drops a sequence, wherever it is; one that has ended already is fine."""
        if self._seated.get(sequence.slot) is sequence:
            del self._seated[sequence.slot]
        elif sequence in self._waiting:
            self._waiting.remove(sequence)

    def step(self) -> list[Output]:
        """One token for each sequence that is past its prompt, then one chunk of one prompt.

        What goes wrong with one sequence ends that one, in its Output; what goes wrong with a call for all is raised.
        The slot of a sequence that has ended keeps what it holds until the next `seat` or `step`.
        """
        self.seat()
        outputs = self._decode() + self._prefill_next()
        for output in outputs:
            if output.is_last:
                del self._seated[output.sequence.slot]
        return outputs

    def _prefill_next(self) -> list[Output]:
        """A chunk for each prompt in turn, so that a short one does not wait for all long ones before it."""
        slots = [slot for slot, each in self._seated.items() if not each.held and not each.is_decoding]
        if not slots:
            return []
        slot = min(slots, key=lambda each: (each - self._turn) % self.slots.count)
        self._turn = slot + 1
        sequence = self._seated[slot]
        try:
            return self._prefill(sequence)
        except Exception as error:
            return [Output(sequence, "", 0, error=error)]

    def _prefill(self, sequence: Sequence) -> list[Output]:
        chunk = CHUNK_BESIDE_OTHERS if any(each.is_decoding for each in self._seated.values()) else CHUNK
        count = min(chunk, sequence.tokens_left)
        if sequence.tokens_left - count < SMALLEST_CHUNK:
            count = sequence.tokens_left
        tokens = np.array(sequence.prompt[sequence.done : sequence.done + count], np.int64)
        logits = self._network.prefill(sequence.slot, tokens, sequence.done)
        sequence.done += count
        return [] if sequence.tokens_left else [sequence.choose(logits, self._tokenizer)]

    def _decode(self) -> list[Output]:
        """One token for each sequence past its prompt, by one call over all slots from the first to the last of them.

        A slot between them that has none decodes a token that nobody looks at, behind what it holds.
        """
        decoding = [slot for slot, each in self._seated.items() if each.is_decoding]
        if not decoding:
            return []
        first, last = self._range(min(decoding), max(decoding))
        seated = [self._seated.get(slot) for slot in range(first, last + 1)]
        tokens = [each.chosen[-1] if each is not None and each.is_decoding else 0 for each in seated]
        logits = self._network.decode(first, tokens, [0 if each is None else each.done for each in seated])
        rows = [(each, row) for each, row in zip(seated, logits, strict=True) if each is not None and each.is_decoding]
        return [self._choose(sequence, row) for sequence, row in rows]

    def _choose(self, sequence: Sequence, logits: NDArray[np.float32]) -> Output:
        sequence.done += 1
        try:
            return sequence.choose(logits, self._tokenizer)
        except Exception as error:
            return Output(sequence, "", 0, error=error)

    def _range(self, first: int, last: int) -> tuple[int, int]:
        """The slots of one call: widened to the least number of them."""
        while last - first + 1 < self._least:
            first, last = (first, last + 1) if last + 1 < self.slots.count else (first - 1, last)
        return first, last
