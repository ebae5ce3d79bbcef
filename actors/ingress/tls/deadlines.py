"""Times that all last equally long: one timer for all of them."""

from __future__ import annotations

import asyncio
from typing import Protocol


class Overdue(Protocol):
    """Whose time may run out."""

    def overdue(self) -> None:
        """Its time has run out."""


class Deadlines:
    """Calls `overdue` on what was added and not taken out within `within_s`. On one loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, within_s: float) -> None:
        self.within_s = within_s
        self._loop = loop
        self._due: dict[Overdue, float] = {}  # in the order in which their times run out
        self._timer: asyncio.TimerHandle | None = None

    def add(self, each: Overdue) -> None:
        """Its time begins now, or again."""
        self._due.pop(each, None)
        self._due[each] = due = self._loop.time() + self.within_s
        if self._timer is None:
            self._timer = self._loop.call_at(due, self._run_out)

    def discard(self, each: Overdue) -> None:
        """Its time does not run out any more. The timer stays where others wait: it would have to be set again."""
        self._due.pop(each, None)
        if not self._due and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _run_out(self) -> None:
        now = self._loop.time()
        for each in [each for each, due in self._due.items() if due <= now]:
            if self._due.pop(each, None) is not None:  # else one that was called before has taken it out
                each.overdue()
        if self._timer is not None:
            self._timer.cancel()
        first = next(iter(self._due.values()), None)
        self._timer = None if first is None else self._loop.call_at(first, self._run_out)
