"""One stream of replies at a time, over a connection of its own: nothing is taken in before somebody asks for it.

So a remote client that reads slowly fills its own lane, which pauses the generator at the other end, and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from ...shm.bell import RECORDS, now_ns
from ..clients.local import LocalConnection
from ..dataplane.async_calls import message_for, timed_out
from ..dataplane.caller import result_of
from ..errors import Disconnected, Overloaded, untouched
from ..message.header import Kind

# A connection takes 200 KiB of shared memory and some descriptors here and in each worker on the way.
MOST_STREAMS = 128
# Opening one takes some milliseconds; so many are kept.
_KEPT = 8


class Tap:
    """One connection, on the running loop. `is_clean` says that its last stream has ended by itself."""

    def __init__(self, connection: LocalConnection) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._rung = asyncio.Event()
        self.is_clean = True
        self._loop.add_reader(connection.link.channel.fileno(), self._hear)

    async def answers(
        self, target: str, fields: dict[str, Any], deadline_ns: int, trace: tuple[int, int], key: str = ""
    ) -> AsyncIterator[tuple[Kind, Any]]:
        """What comes back of a call, each with its kind; the last is END or REPLY. Raises what the call ends with."""
        caller = self._connection.caller
        message = message_for(self._connection.routing, target, (), fields, inside=False, stream=True)
        self.is_clean = False
        pending = caller.begin(target, message, deadline_ns=deadline_ns, trace=trace, notify=_nobody, key=key)
        try:
            while True:
                while not pending.arrived:
                    if not self._take_one():
                        await self._sleep(deadline_ns, target)
                kind, value = pending.take()
                self.is_clean = kind != Kind.ITEM
                yield kind, result_of(kind, value)
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
        bell = self._connection.bell
        left_s = (deadline_ns - now_ns()) / 1e9 if deadline_ns else None
        if left_s is not None and left_s <= 0:
            raise timed_out(target)
        self._rung.clear()
        self._loop.add_reader(bell.fd, self._rung.set)
        wait = self._connection.wait
        longest_s = wait.begin_park(RECORDS, self._connection.caller.has_news, left_s)
        try:
            async with asyncio.timeout(longest_s):
                await self._rung.wait()
        except TimeoutError:
            pass  # the caller looks at the clock
        finally:
            wait.end_park()
            self._loop.remove_reader(bell.fd)

    def _hear(self) -> None:
        try:
            self._connection.link.pump()
        except Disconnected as error:
            self._loop.remove_reader(self._connection.link.channel.fileno())
            self._connection.caller.fail_all(error)
        self._rung.set()

    def close(self) -> None:
        self._loop.remove_reader(self._connection.link.channel.fileno())
        self._connection.close()


class Taps:
    """The taps of a gateway: some are kept open for the next stream."""

    def __init__(self, graph: str) -> None:
        self._graph = graph
        self._idle: list[Tap] = []
        self._open = 0

    async def take(self) -> Tap:
        """A tap for one stream; give it back. Raises Overloaded when there are too many."""
        if self._idle:
            return self._idle.pop()
        if self._open >= MOST_STREAMS:
            text = f"{MOST_STREAMS} streams are open at this gateway; try again when some have ended"
            raise untouched(Overloaded(text))
        self._open += 1
        opening = asyncio.ensure_future(asyncio.to_thread(LocalConnection, self._graph, may_spin=False))
        try:
            return Tap(await asyncio.shield(opening))
        except BaseException:
            self._open -= 1
            opening.add_done_callback(_close_opened)
            raise

    def give_back(self, tap: Tap) -> None:
        if tap.is_clean and len(self._idle) < _KEPT:
            self._idle.append(tap)
        else:
            self._open -= 1
            tap.close()

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()


def _close_opened(opening: asyncio.Future[LocalConnection]) -> None:
    """Its stream was cancelled while it was being opened."""
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


def _nobody() -> None:
    """The one who waits looks for itself."""
