"""Room for one more connection: who has to go when all places are taken."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator

from ..tls.entrance import Entrance
from .connection import Connection, State

# What a handshake or a request gets to come in whole, however many others want its place.
PATIENCE_S = 1.0


class ConnectionLimit:
    """Keeps connections, and the handshakes on the way to be one, at `most`.

    When they are, the connection that has been idle the longest makes room. If none is idle, that request or handshake
    does which has been incomplete the longest, once `PATIENCE_S` have passed: whoever sends slowly, or nothing, cannot
    keep others out. Where all are being answered new ones wait.
    """

    def __init__(self, most: int, state: State) -> None:
        self.most = most
        self._state = state

    async def make(self, entrance: Entrance) -> None:
        """Comes back when one more connection has its place."""
        going: Connection | None = None
        while len(entrance.handshakes) + len(self._state.connections) >= self.most:
            wait_s = None
            if going not in self._state.connections:
                going = self._close_an_idle_one()
                wait_s = None if going else self._break_off_the_slowest(entrance)
            self._state.changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._state.changed.wait()

    def _close_an_idle_one(self) -> Connection | None:
        idle = [each for each in self._state.connections if each.is_idle and not each.transport.is_closing()]
        if not idle:
            return None
        longest: Connection = max(idle, key=lambda each: each.quiet_s)
        longest.hang_up()
        return longest

    def _break_off_the_slowest(self, entrance: Entrance) -> float | None:
        """Seconds until one may be; None where only the end of something helps."""
        slow = [*self._requests(), *entrance.slow_handshakes()]
        if not slow:
            return None
        waited_s, break_off = max(slow, key=lambda each: each[0])
        if waited_s < PATIENCE_S:
            return PATIENCE_S - waited_s
        break_off()
        return None

    def _requests(self) -> Iterator[tuple[float, Callable[[], object]]]:
        for each in self._state.connections:
            overdue_s = each.overdue_s
            if overdue_s is not None:
                yield overdue_s, each.make_room
