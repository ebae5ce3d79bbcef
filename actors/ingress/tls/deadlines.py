"""Times that all last equally long: one timer for all of them, which is set once in each such time at most."""

from __future__ import annotations

import asyncio
from time import monotonic
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
        self._due[each] = monotonic() + self.within_s
        if self._timer is None:
            self._timer = self._loop.call_later(self.within_s, self._run_out)

    def discard(self, each: Overdue) -> None:
        """Its time does not run out any more. The timer stays: to set it again costs more than when it finds nobody."""
        self._due.pop(each, None)

    def _run_out(self) -> None:
        now = monotonic()
        try:
            for each in [each for each, due in self._due.items() if due <= now]:
                if self._due.pop(each, None) is not None:  # else one that was called before has taken it out
                    each.overdue()
        finally:
            first = next(iter(self._due.values()), None)
            self._timer = None if first is None else self._loop.call_later(first - monotonic(), self._run_out)
