"""The input that an actor may have died of, twice: it is handled with no other beside it."""

from __future__ import annotations

from ...shm.bell import now_ns
from .work import Work

# All inputs in flight are counted up when a process dies, though one alone may be to blame. From the third attempt on
# each is handled alone, so that only that one goes on counting; one that has run this long is not to blame.
_FROM_ATTEMPT = 3
_PROVEN_AFTER_NS = 5_000_000_000


class Quarantine:
    """Of one actor instance. `work` is what was put into it."""

    def __init__(self) -> None:
        self.work: Work | None = None

    @staticmethod
    def is_for(work: Work) -> bool:
        """Whether an input must be handled alone."""
        return work.attempt >= _FROM_ATTEMPT

    def put(self, work: Work) -> None:
        """It has begun, alone."""
        self.work = work

    def holds(self) -> bool:
        """Whether one is in there, so that no other may begin."""
        if self.work is not None and (self.work.finished or now_ns() > self.work.started_ns + _PROVEN_AFTER_NS):
            self.work = None
        return self.work is not None

    def until_ns(self) -> int:
        """When the one in there will have proven harmless, on CLOCK_MONOTONIC; 0 if there is none."""
        return self.work.started_ns + _PROVEN_AFTER_NS if self.work is not None else 0
