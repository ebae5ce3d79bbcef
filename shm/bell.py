"""Park and wake: who waits says so in a word, who has news rings an eventfd only then."""

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

BELL = Layout(
    "bell",
    Group(
        "owner",
        "the process that waits",
        (
            Word(
                "waiting_for",
                "0 while awake, else why it is parked: 1 records, 2 room, 4 blocks",
                "its peers",
                pairs_with="head, tail and released of its lanes",
            ),
        ),
    ),
)
_WAITING_FOR = BELL.place().word("waiting_for")

# A wait this short is cheaper spun than slept: the kernel's wake-up costs 26 to 90 µs.
LONGEST_SPIN_NS = 150_000
# Without a barrier a wake-up may be missed: look again after this long.
UNFENCED_PARK_S = 0.002


class Ringer:
    """A peer's side of somebody's bell. Any thread may ring."""

    __slots__ = ("_fd", "_words", "segment")

    def __init__(self, segment: Segment, fd: int) -> None:
        self.segment = segment
        self._words = segment.words
        self._fd = fd

    def ring(self, news: int) -> None:
        """Wakes the owner if it is parked for such news. Call it after the store that it shall see."""
        if self._words[_WAITING_FOR] & news:
            self.ring_always()

    def ring_always(self) -> None:
        try:
            os.eventfd_write(self._fd, 1)
        except (BlockingIOError, OSError):
            pass  # full: it is ringing already; closed: this process is ending

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Bell:
    """The owner's side: parks, and decides whether to spin before it does. One thread.

    Counters: `spins` (waits that ended while spinning), `parks`, `wakes` (parks ended by a ring).
    """

    def __init__(self, segment: Segment, fd: int, *, may_spin: bool) -> None:
        self.segment = segment
        self.fd = fd
        self._words = segment.words
        self._words[_WAITING_FOR] = 0  # a predecessor may have died parked
        self._may_spin = may_spin
        self._paying = 0.5
        self.spins = self.parks = self.wakes = 0
        fence.register()

    def spin_ns(self) -> int:
        """For how long to poll before parking: nothing unless waits have lately been shorter than a wake-up costs."""
        return LONGEST_SPIN_NS if self._may_spin and self._paying > 0.4 else 0

    def waited(self, nanoseconds: int) -> None:
        """Tells how long the wait that has just ended took, spun or parked: this is what it learns from."""
        self._paying += ((nanoseconds < LONGEST_SPIN_NS) - self._paying) / 8

    def park(self, reasons: int) -> float | None:
        """Announces that the owner is about to sleep; it must look at its lanes once more after this.

        Returns how long it may sleep at most, in seconds: None for as long as it likes.
        """
        self.parks += 1
        self._words[_WAITING_FOR] = reasons  # pairs with: Ringer.ring
        return None if fence.full_barrier() else UNFENCED_PARK_S

    def unpark(self) -> None:
        """Takes the announcement back and silences the bell."""
        self._words[_WAITING_FOR] = 0
        try:
            os.eventfd_read(self.fd)
            self.wakes += 1
        except BlockingIOError:
            pass

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
        self.segment.close_descriptor()


def new_doorbell() -> int:
    """The descriptor of a bell: a non-blocking eventfd."""
    return os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)


def now_ns() -> int:
    """The clock of deadlines: CLOCK_MONOTONIC, the same in all processes of a machine."""
    return time.monotonic_ns()
