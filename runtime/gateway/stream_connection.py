"""One stream of replies at a time, over a connection of its own: nothing is taken in before somebody asks for it.

So a remote client that reads slowly fills its own lane, which pauses the generator at the other end, and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from ...shm.bell import RECORDS, now_ns
from ..clients.async_connection import LoopParking, opened
from ..clients.connection import seconds_for_an_answer
from ..clients.local import LocalConnection
from ..dataplane.caller import timed_out
from ..errors import Disconnected, Overloaded, mark_not_begun
from ..message.header import Kind

# A connection takes 200 KiB of shared memory and some descriptors here and in each worker on the way.
MOST_STREAMS = 128
# Opening one takes some milliseconds; so many are kept.
_KEPT = 8


class StreamConnection:
    """One connection, on the running loop. `is_clean` says that its last stream has ended by itself."""

    def __init__(self, connection: LocalConnection) -> None:
        self._connection = connection
        self._called = asyncio.Event()
        self._parking = LoopParking(connection, self._awake)
        self.is_clean = True

    async def answers(
        self, target: str, fields: dict[str, Any], deadline_ns: int, trace: tuple[int, int], key: str = ""
    ) -> AsyncIterator[tuple[Kind, Any]]:
        """What comes back of a call, each with its kind; the last is END or REPLY. Raises what the call ends with."""
        caller = self._connection.caller
        request = caller.checked(target, (), fields, stream=True)
        self.is_clean = False
        pending = caller.begin(request, deadline_ns=deadline_ns, trace=trace, key=key)
        try:
            while True:
                while not pending.arrived:
                    if not self._take_one():
                        await self._sleep(deadline_ns, target)
                kind = pending.next_kind()
                self.is_clean = kind is not Kind.ITEM
                yield kind, pending.result()
                if kind in (Kind.END, Kind.REPLY):
                    return
        finally:
            caller.cancel(pending)

    def _take_one(self) -> bool:
        for lane in self._connection.caller.replies:
            if lane.available():
                self._connection.caller.take(lane)
                return True
        return False

    async def _sleep(self, deadline_ns: int, target: str) -> None:
        left_s = (deadline_ns - now_ns()) / 1e9 if deadline_ns else None
        if left_s is not None and left_s <= 0:
            raise timed_out(target)
        self._called.clear()
        self._parking.park(RECORDS, self._connection.caller.has_news, left_s)
        try:
            await self._called.wait()
        finally:
            self._parking.end()

    def _awake(self, *, called: bool) -> None:
        try:
            if called:
                self._connection.link.pump()
        except Disconnected as error:
            self._parking.close()
            self._connection.caller.fail_all(error)
        self._called.set()

    def close(self) -> None:
        self._parking.close()
        self._connection.close()


class StreamConnections:
    """The streams of a gateway: some are kept open for the next stream."""

    def __init__(self, graph: str) -> None:
        self._graph = graph
        self._idle: list[StreamConnection] = []
        self._open = 0

    async def take(self) -> StreamConnection:
        """A connection for one stream; give it back. Raises Overloaded when there are too many."""
        if self._idle:
            return self._idle.pop()
        if self._open >= MOST_STREAMS:
            text = f"{MOST_STREAMS} streams are open at this gateway; try again when some have ended"
            raise mark_not_begun(Overloaded(text))
        self._open += 1
        try:
            return StreamConnection(await opened(self._graph, seconds_for_an_answer(0)))
        except BaseException:
            self._open -= 1
            raise

    def give_back(self, connection: StreamConnection) -> None:
        if connection.is_clean and len(self._idle) < _KEPT:
            self._idle.append(connection)
        else:
            self._open -= 1
            connection.close()

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()
