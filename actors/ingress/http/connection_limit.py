"""Room for one more connection: who has to go when all places are taken."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator

from ....runtime.host.descriptors import REMEDY, free_descriptors
from ..tls.entrance import Entrance
from .connection import Connection
from .state import State

logger = logging.getLogger("slabwire")

# What a handshake or a request gets to come in whole, however many others want its place.
PATIENCE_S = 1.0
# What the rest of an ingress may still open: lanes to those that it calls, files of the certificate.
_OTHER_FILES = 128


class ConnectionLimit:
    """Keeps connections, and the handshakes on the way to be one, at `most`.

    When they are, the connection that has been idle the longest makes room. If none is idle, that request, handshake or
    end does which has been incomplete the longest, once `PATIENCE_S` have passed: whoever sends slowly, or nothing, or
    does not answer our good-bye, cannot keep others out. Where all are being answered new ones wait.
    """

    def __init__(self, most: int, state: State) -> None:
        self.most = most
        self._state = state
        self._idle: list[tuple[float, Connection]] = []  # those that were when last looked for, the longest at the end

    def make(self, entrance: Entrance) -> Awaitable[None] | None:
        """None where there is room. Else what comes back when one more connection has its place."""
        return None if self._is_there(entrance) else self._make(entrance)

    def _is_there(self, entrance: Entrance) -> bool:
        return len(entrance.handshakes) + len(self._state.connections) < self.most

    async def _make(self, entrance: Entrance) -> None:
        going: Connection | None = None
        while not self._is_there(entrance):
            wait_s = None
            if going not in self._state.connections:
                going = self._close_an_idle_one()
                wait_s = None if going else self._break_off_the_slowest(entrance)
            self._state.changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._state.changed.wait()

    def _close_an_idle_one(self) -> Connection | None:
        longest = self._longest_idle()
        if longest is None:
            self._look_for_idle()
            longest = self._longest_idle()
        if longest is not None:
            longest.hang_up()
        return longest

    def _longest_idle(self) -> Connection | None:
        """Of those that were found; they are looked for but once for many that come, however many there are."""
        while self._idle:
            since, longest = self._idle.pop()
            if _is_idle(longest) and longest.quiet_since == since:  # else it was not idle in between
                return longest
        return None

    def _look_for_idle(self) -> None:
        idle = [(each.quiet_since, each) for each in self._state.connections if _is_idle(each)]
        self._idle = sorted(idle, key=lambda each: each[0], reverse=True)

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
            transport, overdue_s = each.transport, each.overdue_s
            if overdue_s is not None:
                yield overdue_s, each.make_room
            elif transport.is_closing() and not transport.get_write_buffer_size():
                yield each.quiet_s, transport.abort


def _is_idle(connection: Connection) -> bool:
    transport = connection.transport
    return connection.is_idle and not (transport.is_closing() or transport.get_write_buffer_size())


def affordable(connections: int) -> int:
    """As many as this process may have descriptors for; what it may not is logged, with the remedy."""
    free = free_descriptors()
    most = connections if free is None else max(1, min(connections, free - _OTHER_FILES))
    if most < connections:
        logger.warning(
            "connections=%d are more than this process may have open files for: it keeps %d at most; %s",
            *(connections, most, REMEDY),
        )
    return most
