"""The calls of one process that wait for their answers, beside its bell: whoever survives it knows what to cancel."""

from __future__ import annotations

import os
import struct

from .bell import BELL
from .lane import STREAM_SLOTS
from .segment import Segment

_FIRST = BELL.place().word("open")
_ALL = struct.Struct(f"={STREAM_SLOTS}Q")


class OpenCalls:
    """Written by the process that calls, one thread. What a predecessor left is forgotten here: it was read when the
    predecessor was reaped. No two calls in flight have one slot: their numbers differ modulo STREAM_SLOTS.

    Without a segment, before there is a bell and after it has been closed, nobody sees what is noted.
    """

    __slots__ = ("_words",)

    def __init__(self, segment: Segment | None = None) -> None:
        self._words = segment.words if segment is not None else memoryview(bytearray(BELL.place().nbytes)).cast("Q")
        for slot in range(STREAM_SLOTS):
            self._words[_FIRST + slot] = 0

    def begin(self, request: int) -> None:
        """To be called before the request is published: one that nobody knows of could not be cancelled."""
        self._words[_FIRST + request % STREAM_SLOTS] = request

    def end(self, request: int) -> None:
        """Its answer is here, or word that it is not wanted any more is on its way."""
        self._words[_FIRST + request % STREAM_SLOTS] = 0


def calls_left(segment: Segment) -> list[int]:
    """The requests that a process which is gone still waited for, by the descriptor of its bell's segment."""
    return [each for each in _ALL.unpack(os.pread(segment.fd, _ALL.size, _FIRST * 8)) if each]
