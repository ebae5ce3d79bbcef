"""Where a worker sleeps: inside asyncio's selector, with its lanes looked at once more after saying so."""

from __future__ import annotations

import asyncio
import select
import selectors
from collections.abc import Callable
from typing import Any

from ..shm.bell import now_ns
from ..shm.wait import AdaptiveWait


class PausingSelector(selectors.EpollSelector):
    """A selector whose every sleep is a park.

    `reasons()` says what may end it, `has_news()` looks at the lanes once more, `asleep(bool)` is told of each sleep.
    A loop whose tasks always have something to do never sleeps, and nobody rings for one that is awake: then
    `between_rounds()` is called at each of its rounds, to look at the lanes.
    """

    def __init__(self) -> None:
        super().__init__()
        self._wait: AdaptiveWait | None = None
        self.ticks = False  # the loop stops after this round in any case
        self.was_called = True  # a sleep was ended by something else than the bell; whoever heeds it takes it back
        self.ran_ns = 0  # how long the loop has run what was due; whoever accounts for it takes it away
        self._runs_since_ns = 0

    def watch(
        self,
        wait: AdaptiveWait,
        reasons: Callable[[], int],
        has_news: Callable[[], bool],
        asleep: Callable[[bool], None],
        between_rounds: Callable[[], None],
    ) -> None:
        self._wait = wait
        self._reasons = reasons
        self._has_news = has_news
        self._asleep = asleep
        self._between_rounds = between_rounds

    def ran(self) -> None:
        """The loop pauses: the time until now was that of what it has run."""
        self.ran_ns += now_ns() - self._runs_since_ns

    def runs(self) -> None:
        """The loop runs what is due."""
        self._runs_since_ns = now_ns()

    def part(self, instead: Callable[[float | None], Any]) -> None:
        """In a forked child, where `instead` is called for each sleep: what is registered stays the parent's."""
        vars(self)["_selector"].close()
        # A new one, else unregistering would take descriptors out of the parent's.
        vars(self).update(_selector=select.epoll(), select=instead)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.ran()
        try:
            return self._select(timeout)
        finally:
            self.runs()

    def _select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        wait = self._wait
        if wait is None or self.ticks:
            return super().select(timeout)
        if timeout is not None and timeout <= 0:
            self._between_rounds()
            return super().select(timeout)
        longest_s = wait.begin_park(self._reasons(), self._has_news, timeout)
        self._asleep(True)
        try:
            events = super().select(longest_s)
        finally:
            self._asleep(False)
            wait.end_park()
        if events and (len(events) > 1 or events[0][0].fd != wait.bell.fd):
            self.was_called = True
        return events


def pausing_loop() -> tuple[asyncio.SelectorEventLoop, PausingSelector]:
    """An event loop that sleeps by parking."""
    selector = PausingSelector()
    return asyncio.SelectorEventLoop(selector), selector


def tick(loop: asyncio.AbstractEventLoop, selector: PausingSelector) -> None:
    """Lets asyncio do what is due, without sleeping."""
    selector.ticks = True
    selector.runs()
    try:
        loop.call_soon(loop.stop)
        loop.run_forever()
    finally:
        selector.ran()
        selector.ticks = False  # else no sleep were a park after Ctrl-C


def sleep(loop: asyncio.AbstractEventLoop, selector: PausingSelector, timeout_s: float | None) -> None:
    """Sleeps in the selector until something calls `loop.stop()`, or the time is over."""
    timer: Any = None if timeout_s is None else loop.call_later(timeout_s, loop.stop)
    selector.runs()
    try:
        loop.run_forever()
    finally:
        selector.ran()
    if timer is not None:
        timer.cancel()
