"""The calls of one process that wait for answers, beside its bell, so that the supervisor can cancel a dead one's."""

from __future__ import annotations

import os
import struct

from .bell import BELL
from .segment import Segment

_FIRST = BELL.place(calls=1).word("open")


class OpenCalls:
    """Written by the process that calls, in one thread. It clears what a predecessor left, which the supervisor read
    when it reaped the predecessor. Two calls in flight never share a slot: their numbers differ modulo `slots`.

    Without a segment, before the bell exists and after it was closed, nothing is noted.
    """

    __slots__ = ("_words", "slots")

    def __init__(self, segment: Segment | None = None) -> None:
        self.slots = segment.placed.rows("open") if segment is not None else 0
        self._words = segment.words if segment is not None else memoryview(b"").cast("Q")
        for slot in range(self.slots):
            self._words[_FIRST + slot] = 0

    def next_free(self, request: int) -> int:
        """The first number from `request` on whose slot no other call has. A process has more slots than calls."""
        words, slots = self._words, self.slots
        while slots and words[_FIRST + request % slots]:
            request += 1
        return request

    def begin(self, request: int) -> None:
        """Notes a call, before its request is published, so that a published request can always be cancelled."""
        if self.slots:
            self._words[_FIRST + request % self.slots] = request

    def end(self, request: int) -> None:
        """Forgets a call: its answer has come, or its cancel is published."""
        if self.slots:
            self._words[_FIRST + request % self.slots] = 0


def calls_left(segment: Segment) -> list[int]:
    """The requests for whose answers a dead process waited, read by the descriptor of its bell's segment."""
    words = struct.Struct(f"={segment.placed.rows('open')}Q")
    return [each for each in words.unpack(os.pread(segment.fd, words.size, _FIRST * 8)) if each]
