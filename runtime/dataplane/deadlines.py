"""What tasks of one loop wait for, and until when: one timer for all of them."""

from __future__ import annotations

import asyncio
from heapq import heapify, heappop, heappush

from ...shm.bell import now_ns

# So many that are over may lie among those that are not, beside as many as these: then sweeping costs each one little.
_LEAST_SWEPT = 64


class Wait:
    """Of one task, for what comes of one call or stream, each time by a `future`. `is_late` once the time is over, at
    `deadline_ns` (0: never).
    """

    __slots__ = ("deadline_ns", "future", "is_late", "is_over", "loop")

    def __init__(self, deadline_ns: int, loop: asyncio.AbstractEventLoop) -> None:
        self.deadline_ns = deadline_ns
        self.loop = loop
        self.future: asyncio.Future[None] = asyncio.Future(loop=loop)
        self.is_late = self.is_over = False

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
    """Of the waits of one loop. One thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waits: list[tuple[int, int, Wait]] = []  # a heap: by deadline, then in order
        self._open = self._number = 0
        self._timer: asyncio.TimerHandle | None = None
        self._due_ns = 0

    def begin(self, deadline_ns: int) -> Wait:
        """A wait that is told when it is late. To be ended in any case."""
        wait = Wait(deadline_ns, self._loop)
        if deadline_ns:
            self._open += 1
            self._number += 1
            heappush(self._waits, (deadline_ns, self._number, wait))
            if self._timer is None or deadline_ns < self._due_ns:
                self._set_timer()
        return wait

    def end(self, wait: Wait) -> None:
        """Its task waits no more. The timer stays: mostly another wait has begun by then."""
        wait.is_over = True
        if wait.deadline_ns:
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
        waits, self._timer = self._waits, None
        while waits and (waits[0][0] <= now or waits[0][2].is_over):
            wait = heappop(waits)[2]
            if not wait.is_over:
                wait.is_late = True
                wait.wake()
        if waits:
            self._set_timer()
