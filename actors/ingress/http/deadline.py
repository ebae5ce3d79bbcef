"""A time that is moved far more often than it runs out: that costs a comparison, and no timer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Deadline:
    """Calls one function when its time has come, unless it was set anew or cleared before. On one loop.

    The timer of an earlier time stays: where it finds a later one, it is set for that.
    """

    __slots__ = ("_at_s", "_loop", "_then", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._at_s = 0.0
        self._then: Callable[[], object] | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_set(self) -> bool:
        return self._then is not None

    def set(self, at_s: float, then: Callable[[], object]) -> None:
        """`then` is called at that time of the loop's, in place of what was to be called before."""
        self._at_s, self._then = at_s, then
        timer = self._timer
        if timer is None or timer.when() > at_s:
            if timer is not None:
                timer.cancel()
            self._timer = self._loop.call_at(at_s, self._look)

    def clear(self) -> None:
        """Nothing is called."""
        self._then = None

    def end(self) -> None:
        """Nothing is called, and no timer is left."""
        self._then = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        timer, self._timer = self._timer, None
        then = self._then
        if then is None:
            return
        if timer is not None and timer.when() < self._at_s:
            self._timer = self._loop.call_at(self._at_s, self._look)
            return
        self._then = None
        then()
