"""Where a worker sleeps: inside asyncio's selector, with its lanes looked at once more after saying so."""

from __future__ import annotations

import asyncio
import select
import selectors
from collections.abc import Callable
from typing import Any

from ...shm.bell import now_ns
from ...shm.wait import AdaptiveWait

# Less time than this is told later, for telling has a price.
_LEAST_TOLD_NS = 200_000


class ParkingSelector(selectors.EpollSelector):
    """A selector whose every sleep is a park.

    `rest(now, longest_s)` is called before it and says how many seconds it may last; 0: not at all, the loop may have
    got something to do. `reasons()` says what may end it, `has_news()` looks at the lanes once more, `asleep(bool)` is
    told of each sleep.
    A loop whose tasks always have something to do never sleeps, and nobody rings for one that is awake: then
    `between_rounds()` is called at each of its rounds, to look at the lanes.
    """

    def __init__(self) -> None:
        super().__init__()
        self._wait: AdaptiveWait | None = None
        self.ticks = False  # the loop stops after this round in any case
        self.was_called = True  # something else than the bell has ended a sleep; `obey` takes this back
        self.ran_ns = 0

    def watch(
        self,
        wait: AdaptiveWait,
        reasons: Callable[[], int],
        has_news: Callable[[], bool],
        rest: Callable[[int, float | None], float | None],
        asleep: Callable[[bool], None],
        between_rounds: Callable[[], None],
    ) -> None:
        self._wait = wait
        self._reasons = reasons
        self._has_news = has_news
        self._rest = rest
        self._asleep = asleep
        self._between_rounds = between_rounds

    def take_ran_ns(self) -> int:
        """How long the loop has run what was due since this was last told; 0 for what is not worth the telling."""
        if self.ran_ns < _LEAST_TOLD_NS:
            return 0
        ran_ns, self.ran_ns = self.ran_ns, 0
        return ran_ns

    def part(self, instead: Callable[[float | None], Any]) -> None:
        """In a forked child, where `instead` is called for each sleep: what is registered stays the parent's."""
        vars(self)["_selector"].close()
        # A new one, else unregistering would take descriptors out of the parent's.
        vars(self).update(_selector=select.epoll(), select=instead)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        wait = self._wait
        if wait is None or self.ticks:
            return super().select(timeout)
        if timeout is not None and timeout <= 0:
            self._between_rounds()
            return super().select(timeout)
        began_ns = now_ns()
        timeout = self._rest(began_ns, timeout)
        self.ran_ns -= now_ns() - began_ns  # no task has run meanwhile
        if timeout == 0:
            return super().select(0)
        events: list[tuple[selectors.SelectorKey, int]] = wait.park(
            self._reasons(), self._has_news, self._sleep, timeout
        )
        if events and (len(events) > 1 or events[0][0].fd != wait.bell.fd):
            self.was_called = True
        return events

    def _sleep(self, longest_s: float | None) -> list[tuple[selectors.SelectorKey, int]]:
        self._asleep(True)
        asleep_ns = now_ns()
        try:
            return super().select(longest_s)
        finally:
            self.ran_ns -= now_ns() - asleep_ns
            self._asleep(False)


def new_parking_loop() -> tuple[asyncio.SelectorEventLoop, ParkingSelector]:
    """An event loop that sleeps by parking."""
    selector = ParkingSelector()
    return asyncio.SelectorEventLoop(selector), selector


def tick(loop: asyncio.AbstractEventLoop, selector: ParkingSelector) -> None:
    """Lets asyncio do what is due, without sleeping."""
    selector.ticks = True
    began_ns = now_ns()
    try:
        loop.call_soon(loop.stop)
        loop.run_forever()
    finally:
        selector.ran_ns += now_ns() - began_ns
        selector.ticks = False  # else no sleep were a park after Ctrl-C


def sleep(loop: asyncio.AbstractEventLoop, selector: ParkingSelector, timeout_s: float | None) -> None:
    """Sleeps in the selector until something calls `loop.stop()`, or the time is over."""
    timer: Any = None if timeout_s is None else loop.call_later(timeout_s, loop.stop)
    began_ns = now_ns()
    try:
        loop.run_forever()
    finally:
        selector.ran_ns += now_ns() - began_ns
    if timer is not None:
        timer.cancel()
