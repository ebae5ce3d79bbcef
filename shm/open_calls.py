"""The calls of one process that wait for answers, beside its bell, so that the supervisor can cancel a dead one's."""

from __future__ import annotations

import os
import struct

from .bell import BELL
from .lane import STREAM_SLOTS
from .segment import Segment

_FIRST = BELL.place().word("open")
_ALL = struct.Struct(f"={STREAM_SLOTS}Q")


class OpenCalls:
    """Written by the process that calls, in one thread. It clears what a predecessor left, which the supervisor read
    when it reaped the predecessor. Two calls in flight never share a slot: their numbers differ modulo STREAM_SLOTS.

    Without a segment, before the bell exists and after it was closed, nobody else sees these notes.
    """

    __slots__ = ("_words",)

    def __init__(self, segment: Segment | None = None) -> None:
        self._words = segment.words if segment is not None else memoryview(bytearray(BELL.place().nbytes)).cast("Q")
        for slot in range(STREAM_SLOTS):
            self._words[_FIRST + slot] = 0

    def begin(self, request: int) -> None:
        """Notes a call, before its request is published, so that a published request can always be cancelled."""
        self._words[_FIRST + request % STREAM_SLOTS] = request

    def end(self, request: int) -> None:
        """Forgets a call: its answer has come, or its cancel is published."""
        self._words[_FIRST + request % STREAM_SLOTS] = 0


def calls_left(segment: Segment) -> list[int]:
    """The requests for whose answers a dead process waited, read by the descriptor of its bell's segment."""
    return [each for each in _ALL.unpack(os.pread(segment.fd, _ALL.size, _FIRST * 8)) if each]
