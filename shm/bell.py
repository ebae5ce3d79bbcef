"""Park and wake: a process that waits says so in a word, and its peers ring its eventfd only then."""

from __future__ import annotations

import os
import time

from . import fence
from .layout import Group, Layout, Word
from .segment import Segment

# Why its owner waits; several may be set at once.
RECORDS = 1  # something to read
ROOM = 2  # a full lane got room
BLOCKS = 4  # a lease ended
_REASONS = 8  # above them stands when it was announced: so no two sleeps, a successor's included, have the same word

BELL = Layout(
    "bell",
    Group(
        "owner",
        "the process that waits",
        (
            Word(
                "waiting_for",
                "0 while awake, else why it is parked (1 records, 2 room, 4 blocks), and 8 times when, in ns",
                "its peers",
                pairs_with="head, tail and released of its lanes",
            ),
        ),
    ),
    Group(
        "calls",
        "the process that waits",
        (Word("open", "the request in this slot that waits for its answer; 0: none", "supervisor, once it is dead"),),
        rows="calls",
    ),
)
WAITING_FOR = BELL.place(calls=1).word("waiting_for")  # the same for any number of calls

# Without a barrier a wake-up may be missed: look again after this long.
UNFENCED_PARK_S = 0.002


class Ringer:
    """A peer's side of the bell of another process. Any thread may ring.

    `words[WAITING_FOR]` says what the bell's owner is parked for. A frequent sender reads it before `ring_for`.
    """

    __slots__ = ("_doorbell", "_rung", "segment", "words")

    def __init__(self, segment: Segment, fd: int) -> None:
        self.segment = segment
        self.words = segment.words
        self._doorbell: _Doorbell | None = _Doorbell(fd)
        self._rung = 0  # the sleep that was rung for last, by its word
        fence.register()  # the parked side's barrier reaches registered processes only

    def ring(self, news: int) -> None:
        """Wakes the owner if it is parked for such news. Call it after the store that the owner must see."""
        # pairs with: Bell.park
        waiting = self.words[WAITING_FOR]
        if waiting & news:
            self.ring_for(waiting)

    def ring_for(self, waiting: int) -> None:
        """Wakes the owner from the sleep that it announced by this word, once: until it has woken up, which takes as
        long as several messages, all others would ring in vain. Before its next sleep it looks for their news.
        """
        if waiting != self._rung:
            self.ring_always()
            self._rung = waiting  # only now: an exception before the write must not keep the next sender from ringing

    def ring_always(self) -> None:
        """Wakes the owner, parked or not; nothing after `close`."""
        # Another thread may close meanwhile: this name keeps the descriptor open, so that its number stays ours.
        doorbell = self._doorbell
        if doorbell is not None:
            try:
                doorbell.write(doorbell.fd, 1)
            except OSError:
                return  # the counter is full: the bell is ringing already

    def close(self) -> None:
        """Gives the descriptor back as soon as no thread is ringing."""
        doorbell, self._doorbell = self._doorbell, None
        if doorbell is not None:
            doorbell.closing = True


class _Doorbell:
    """An eventfd. Once it is `closing`, the last thread that uses it closes it."""

    __slots__ = ("_close", "closing", "fd", "write")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.closing = False
        self.write, self._close = os.eventfd_write, os.close

    def __del__(self) -> None:
        if self.closing:
            self._close(self.fd)


class Bell:
    """The owner's side: it announces each sleep. One thread; `AdaptiveWait` decides when to sleep.

    Counters: `parks`, and `wakes` (parks ended by a ring).
    """

    def __init__(self, segment: Segment, fd: int) -> None:
        self.segment = segment
        self.fd = fd
        self._words = segment.words
        self._words[WAITING_FOR] = 0  # a predecessor may have died parked
        self.parks = self.wakes = 0
        fence.register()

    def park(self, reasons: int) -> float | None:
        """Announces that the owner is about to sleep. The owner must look at its lanes once more after this call.

        Returns the longest sleep in seconds; None: without a limit.
        """
        self.parks += 1
        # pairs with: Ringer.ring, Producer.publish, Consumer.commit, Consumer.release
        self._words[WAITING_FOR] = now_ns() * _REASONS + reasons
        return None if fence.full_barrier() else UNFENCED_PARK_S

    def unpark(self) -> None:
        """Takes the announcement back and silences the bell."""
        self._words[WAITING_FOR] = 0
        try:
            os.eventfd_read(self.fd)
            self.wakes += 1
        except BlockingIOError:
            pass

    def close(self) -> None:
        """Gives the descriptors back; peers that still ring wake nobody."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
        self.segment.close_descriptor()


def new_doorbell() -> int:
    """The descriptor of a bell: a non-blocking eventfd."""
    return os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)


# The clock of deadlines: CLOCK_MONOTONIC, the same in all processes of a machine.
now_ns = time.monotonic_ns
