"""What is waited for on one loop, and until when: one timer for all of it."""

from __future__ import annotations

import asyncio
from heapq import heapify, heappop, heappush
from typing import Protocol

from ...shm.bell import now_ns

# So many that are over may lie among those that are not, beside as many as these: then sweeping costs each one little.
_LEAST_SWEPT = 64


class Late(Protocol):
    """Whose time may run out, at `deadline_ns`. That of one which `is_over` does not matter any more."""

    deadline_ns: int

    @property
    def is_over(self) -> bool: ...

    def be_late(self) -> None:
        """Its time has run out."""


class Wait:
    """Of one task, for what comes of one call or stream, each time by a `future`. `is_late` once the time is over, at
    `deadline_ns` (0: never). `is_over`: its task waits no more.
    """

    __slots__ = ("deadline_ns", "future", "is_late", "is_over", "loop")

    def __init__(self, deadline_ns: int, loop: asyncio.AbstractEventLoop) -> None:
        self.deadline_ns = deadline_ns
        self.loop = loop
        self.future: asyncio.Future[None] = asyncio.Future(loop=loop)
        self.is_late = self.is_over = False

    def be_late(self) -> None:
        self.is_late = True
        self.wake()

    def wake(self) -> None:
        """Something has come."""
        if not self.future.done():
            self.future.set_result(None)

    def again(self) -> asyncio.Future[None]:
        """To be awaited for the next that comes."""
        if self.future.done():
            self.future = self.loop.create_future()
        return self.future


class Deadlines:
    """Of all that is waited for on one loop. One thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waits: list[tuple[int, int, Late]] = []  # a heap: by deadline, then in order
        self._open = self._number = 0
        self._timer: asyncio.TimerHandle | None = None
        self._due_ns = 0

    def add(self, each: Late) -> None:
        """What is to be told when it is late, and has a deadline. To be forgotten in any case."""
        self._open += 1
        self._number += 1
        heappush(self._waits, (each.deadline_ns, self._number, each))
        if self._timer is None or each.deadline_ns < self._due_ns:
            self._set_timer()

    def forget(self) -> None:
        """One that was added is over. The timer stays: mostly another one has come by then."""
        self._open -= 1
        if len(self._waits) > 2 * self._open + _LEAST_SWEPT:
            self._waits = [each for each in self._waits if not each[2].is_over]
            heapify(self._waits)

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._due_ns = self._waits[0][0]
        self._timer = self._loop.call_later(max(0.0, (self._due_ns - now_ns()) / 1e9), self._look)

    def _look(self) -> None:
        now = now_ns()
        self._timer = None
        try:
            while self._waits and (self._waits[0][0] <= now or self._waits[0][2].is_over):
                each = heappop(self._waits)[2]
                if not each.is_over:
                    each.be_late()  # whereupon others may be forgotten, or added
        finally:  # one that fails takes no time from the others
            if self._waits:
                self._set_timer()
