"""Where a worker sleeps: inside asyncio's selector, with its lanes looked at once more after saying so."""

from __future__ import annotations

import asyncio
import select
import selectors
from collections.abc import Callable, Collection
from typing import Any, Protocol

from ...shm.bell import now_ns
from .sleeper import Sleeper

# Less time than this is told later, for telling has a price.
_LEAST_TOLD_NS = 1_000_000

_Events = list[tuple[selectors.SelectorKey, int]]


class AtWork(Protocol):
    """A worker, as it is called between the rounds of its loop."""

    is_round_due: bool  # after `work`: whether the loop must have a round before there is more of it

    def work(self) -> bool:
        """Does what there is to do in the lanes, for a quantum; whether there was anything."""

    def round_ended(self) -> None:
        """Rings for what the tasks of a round have sent, and hears the supervisor if it may have called. Raises what
        ends the worker.
        """

    def stops_for_news(self) -> bool:
        """In a loop that does not stay: whether there is news, for which the loop then ends."""

    def between_rounds(self) -> None:
        """In a loop that does not stay, while tasks keep it from sleeping: nobody rings for one that is awake."""


class ParkingSelector(selectors.EpollSelector):
    """A selector whose every sleep is a park.

    In a loop that `stays`, what lies in the lanes is worked off here, between the rounds: to leave the loop for each
    message, and to enter it again, would cost more than most messages do.
    """

    def __init__(self) -> None:
        super().__init__()
        self._is_watched = False
        self.ticks = False  # the loop stops after this round in any case
        self.stays = False
        self.was_called = True  # by the supervisor, as far as is known; `obey` takes this back
        self.ran_ns = 0
        self._callers: Collection[int] = ()
        self._has_worked = False  # since the last sleep; then more may come soon, and looking for it may pay
        self._round_ns = 0  # when the last round of a loop that stays began

    def watch(self, sleeper: Sleeper, worker: AtWork, callers: Collection[int]) -> None:
        """`callers` are the descriptors by which the supervisor calls."""
        self._is_watched = True
        self._sleeper = sleeper
        self._worker = worker
        self._callers = callers

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

    def select(self, timeout: float | None = None) -> _Events:
        if self.ticks or not self._is_watched:
            return self._poll(timeout)
        sleeper = self._sleeper
        if self.stays:
            return self._between_rounds(sleeper, timeout)
        if timeout is not None and timeout <= 0:
            self._worker.between_rounds()
            return self._poll(timeout)
        began_ns = now_ns()
        timeout = sleeper.rest(timeout)
        self.ran_ns -= now_ns() - began_ns  # no task has run meanwhile
        if timeout == 0:
            return self._poll(0)
        return self._park(sleeper, timeout, self._worker.stops_for_news)

    # -- a loop that stays -------------------------------------------------------------------------------------------

    def _between_rounds(self, sleeper: Sleeper, timeout: float | None) -> _Events:
        """Handlers find no running loop here, as little as between two turns: they may run one of their own."""
        loop = asyncio._get_running_loop()
        asyncio._set_running_loop(None)
        if self._round_ns:
            self.ran_ns += now_ns() - self._round_ns
        try:
            return self._work_or_sleep(sleeper, self._worker, timeout)
        finally:
            self._round_ns = now_ns()
            asyncio._set_running_loop(loop)

    def _work_or_sleep(self, sleeper: Sleeper, worker: AtWork, timeout: float | None) -> _Events:
        """Returns for a round where one is due, and after work that may have given the loop something to do."""
        worker.round_ended()
        if timeout is not None and timeout <= 0:
            self._has_worked = worker.work()
            return self._poll(0)
        has_worked = False
        while (sleeper.has_unread() or (self._has_worked and sleeper.spins())) and worker.work():
            has_worked = self._has_worked = True
            if worker.is_round_due:
                break
        if has_worked:
            return self._poll(0)
        self._has_worked = False
        longest_s = sleeper.rest(sleeper.longest_s(timeout))
        if longest_s == 0:
            self._has_worked = worker.work()
            return self._poll(0)
        events = self._park(sleeper, longest_s, sleeper.has_news)
        others = [each for each in events if each[0].fd != sleeper.wait.bell.fd]
        is_due = not events and longest_s != timeout  # else asyncio alone has something to do
        if sleeper.had_news or len(others) < len(events) or is_due:
            self._has_worked = worker.work()
        return others

    # -- sleep -------------------------------------------------------------------------------------------------------

    def _park(self, sleeper: Sleeper, longest_s: float | None, has_news: Callable[[], bool]) -> _Events:
        events: _Events = sleeper.wait.park(sleeper.reasons(), has_news, self._sleep, longest_s)
        return events

    def _poll(self, timeout_s: float | None) -> _Events:
        events = super().select(timeout_s)
        for key, _ in events:
            if key.fd in self._callers:
                self.was_called = True
        return events

    def _sleep(self, longest_s: float | None) -> _Events:
        sleeper = self._sleeper
        sleeper.falls_asleep()
        asleep_ns = now_ns()
        try:
            return self._poll(longest_s)
        finally:
            if not self.stays:
                self.ran_ns -= now_ns() - asleep_ns
            sleeper.woke()

    def begin_to_stay(self) -> None:
        self.stays = True

    def end_to_stay(self) -> None:
        self.stays = False
        if self._round_ns:
            self.ran_ns += now_ns() - self._round_ns
            self._round_ns = 0


def new_parking_loop() -> tuple[asyncio.SelectorEventLoop, ParkingSelector]:
    """An event loop that sleeps by parking."""
    selector = ParkingSelector()
    return asyncio.SelectorEventLoop(selector), selector


def stay(loop: asyncio.AbstractEventLoop, selector: ParkingSelector) -> None:
    """Works off what comes by the lanes, and lets asyncio do what is due, until something calls `loop.stop()`."""
    selector.begin_to_stay()
    try:
        loop.run_forever()
    finally:
        selector.end_to_stay()


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
