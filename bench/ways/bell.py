"""The bell alone: a word each way, and park and ring around it. No lane, no record."""

from __future__ import annotations

import os
import select
from collections.abc import Iterable, Sequence
from typing import Any

from ...shm.bell import BELL, RECORDS, Bell, Ringer, new_doorbell
from ...shm.layout import Group, Layout, Word
from ...shm.segment import Segment
from ..harness.contestant import Payload, Seats, checksum
from ..harness.echo import Echoed, EchoProcess, Order

WORDS = Layout(
    "bench_words",
    Group("there", "caller", (Word("question", "checksum and number of the trip", "echo"),)),
    Group("back", "echo", (Word("reply", "the same, when it was seen", "caller"),)),
)
_SHIFT = 16


class _Side:
    """One party: parks until the word that it reads is another one."""

    def __init__(self, bell: Bell, peer: Ringer, words: memoryview, mine: int, theirs: int) -> None:
        self._bell = bell
        self._peer = peer
        self._words = words
        self._mine = mine
        self._theirs = theirs
        self._poll = select.poll()
        self._poll.register(bell.fd, select.POLLIN)

    def say(self, value: int) -> None:
        self._words[self._mine] = value
        self._peer.ring(RECORDS)

    def wait(self, known: int) -> int:
        """The word, once it is not `known` any more."""
        words, theirs = self._words, self._theirs
        while (value := words[theirs]) == known:
            longest = self._bell.park(RECORDS)
            if words[theirs] == known:
                self._poll.poll(None if longest is None else longest * 1000)
            self._bell.unpark()
        return int(value)


class BellAlone(Echoed):
    name = "bell"
    title = "bell alone"

    def __init__(self, seats: Seats, sizes: Sequence[int]) -> None:  # noqa: ARG002 - nothing of any size
        bells = [Segment.create(BELL, "bell of a bench", calls=1) for _ in range(2)]
        words = Segment.create(WORDS, "words of a bench")
        self._doorbells = [new_doorbell(), new_doorbell()]
        self._segments = [*bells, words]
        self._bell, self._ringer = (
            Bell(bells[0], os.dup(self._doorbells[0])),
            Ringer(bells[1], os.dup(self._doorbells[1])),
        )
        placed = words.placed
        self._side = _Side(self._bell, self._ringer, words.words, placed.word("question"), placed.word("reply"))
        self._trip = 0
        self._last = 0
        details = {"bells": [each.fd for each in bells], "doorbells": self._doorbells, "words": words.fd}
        descriptors = [*self._doorbells, *(each.fd for each in self._segments)]
        super().__init__(EchoProcess("ways.bell:serve", seats.echo, details, descriptors))

    def trip(self, payload: Payload) -> int:
        self._trip += 1
        self._side.say(self._trip << _SHIFT | checksum(payload))
        self._last = self._side.wait(self._last)
        return self._last & (1 << _SHIFT) - 1

    def _let_go(self) -> None:
        self._bell.close()
        self._ringer.close()
        for fd in self._doorbells:
            os.close(fd)
        for each in self._segments:
            each.close_descriptor()


def serve(orders: Iterable[Order], details: dict[str, Any]) -> None:
    """The echo."""
    near, far = (Segment.open(fd, BELL, writable=each == 1) for each, fd in enumerate(details["bells"]))
    words = Segment.open(details["words"], WORDS, writable=True)
    bell, ringer = Bell(far, details["doorbells"][1]), Ringer(near, details["doorbells"][0])
    placed = words.placed
    side = _Side(bell, ringer, words.words, placed.word("reply"), placed.word("question"))
    last = 0
    for order in orders:
        for _ in range(order.trips):
            last = side.wait(last)
            side.say(last)
