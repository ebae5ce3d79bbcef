"""HTTP/1.1 over secured connections: uvicorn's protocol, without its server, on the loop that is running.

Nothing here ticks: while no connection is open nothing runs, but for a time that was set and runs out once. An idle
connection has one timer, that of its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ..counts.connections import Connections
from ..counts.sheet import Sheet
from ..tls.entrance import Entrance
from ..tls.outcome import Outcome
from ..tls.terminator import Terminator
from .connection import FRESH_WITHIN_S, Connection
from .connection_limit import ConnectionLimit
from .state import State

logger = logging.getLogger("slabwire")

# Longer than the clients' pools keep an idle connection (5 s in httpx, 60 s in common load balancers): so it is they
# who close, and no request meets a connection that is just going away.
KEEP_ALIVE_S = 75
# What requests that were cut off get to end, before their tasks are cancelled.
CUT_WITHIN_S = 1.0
# One that takes its leave looks this often whether a connection has become one to close.
_LOOK_EVERY_S = 0.05


class HttpServer:
    """Serves one ASGI application. Made, started and stopped on one running loop.

    At most `connections` are open at a time, those that still shake hands among them; new ones wait in the kernel until
    another has made room for them, as `ConnectionLimit` says. `counts` is what is counted of them.
    """

    def __init__(
        self,
        application: Callable[..., Any],
        terminator: Terminator,
        *,
        connections: int = 256,
        counts: Connections | None = None,
    ) -> None:
        self.terminator = terminator
        self.state = State()
        self._counts = counts or _counts_of_its_own()
        self.state.shown = self._counts.are_open
        self._seeing_off: asyncio.Task[None] | None = None
        config, room = _config(application), ConnectionLimit(connections, self.state)
        self._entrance = Entrance(
            terminator,
            lambda: Connection(config, self.state),
            lambda: room.make(self._entrance),
            self._shook_hands,
            self._counts.accepted,
        )

    def _shook_hands(self, outcome: Outcome) -> None:
        self._counts.shook_hands(outcome)
        self.state.changed.set()

    def start(
        self,
        listeners: Sequence[socket.socket],
        others: Mapping[int, Sequence[socket.socket]] | None = None,
        absent: Callable[[], Collection[int]] = tuple,
    ) -> None:
        """Serves what comes to these listening sockets, non-blocking and all on one port, and takes them over; also
        what comes to those of other replicas, while these are `absent`.
        """
        self._entrance.open(listeners, others, absent)

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._entrance.port

    def stats(self) -> dict[str, int]:
        """Connections that are open, requests that run; and counted: those answered, refused, failed handshakes."""
        return {
            "connections": len(self.state.connections),
            "handshakes": len(self._entrance.handshakes),
            "running": len(self.state.tasks) + sum(each.streams_on for each in self.state.connections),
            "requests": self.state.total_requests,
            "refused": self.state.refused,
            "failed_handshakes": self._entrance.failed_handshakes,
        }

    # -- the end -----------------------------------------------------------------------------------------------------

    def leave(self) -> None:
        """Takes no more connections: what comes from now on waits in the kernel for whoever else listens there. Those
        that have been idle for a while are closed, all others behind their next answer.
        """
        self.state.is_leaving = True
        self._entrance.shut()
        if self._seeing_off is None:
            self._seeing_off = asyncio.create_task(self._see_off())

    async def _see_off(self) -> None:
        told: set[Connection] = set()
        while self._entrance.is_busy or self.state.connections:
            for connection in self.state.connections - told:
                if not connection.is_fresh:
                    told.add(connection)
                    connection.shutdown()
            told &= self.state.connections
            await asyncio.sleep(_LOOK_EVERY_S)

    async def stop(
        self, grace_s: float, tell: Callable[[], None] | None = None, hear_s: float = FRESH_WITHIN_S
    ) -> None:
        """Takes no more connections, lets requests in flight end within `grace_s`, then cuts what is left: first those
        end that `tell` reaches, then their connections. For up to `hear_s` of this time requests still come in of those
        who have just connected, or had an answer.
        """
        until_s = asyncio.get_running_loop().time() + grace_s
        self.leave()
        await self._hear_the_last(min(grace_s, hear_s))
        await self._entrance.close()
        for connection in list(self.state.connections):
            connection.shutdown()
        if not await self._empties(until_s - asyncio.get_running_loop().time()) and tell is not None:
            tell()
            await self._empties(CUT_WITHIN_S)
        await self._cut()
        if self._seeing_off is not None:
            self._seeing_off.cancel()
        self.terminator.close()

    async def _hear_the_last(self, within_s: float) -> None:
        """Waits for the requests of those who were let in already."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while self._entrance.is_busy or any(each.is_fresh for each in self.state.connections):
                    await asyncio.sleep(_LOOK_EVERY_S)

    async def _empties(self, within_s: float) -> bool:
        """Waits until nothing is in flight, so long at most; whether nothing is."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._emptied()
                return True
        return False

    async def _emptied(self) -> None:
        while self.state.connections or self.state.tasks:
            for task in self.state.tasks:
                task.add_done_callback(lambda _: self.state.changed.set())
            self.state.changed.clear()
            await self.state.changed.wait()

    async def _cut(self) -> None:
        """First the connections, which tells the requests; then the tasks that do not heed it."""
        for connection in list(self.state.connections):
            connection.transport.abort()
        await self._empties(CUT_WITHIN_S)
        tasks = list(self.state.tasks)
        if tasks:
            logger.warning("%d requests were cut off", len(tasks))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.state.tasks.difference_update(tasks)  # those that had not begun


def _counts_of_its_own() -> Connections:
    sheet = Sheet()
    counts = Connections(sheet)
    sheet.lie_in([0.0] * sheet.length)
    return counts


def _config(application: Callable[..., Any]) -> Config:
    """What uvicorn's protocol reads of its configuration."""
    config = Config(
        application,
        http=HttpToolsProtocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        log_level="error",  # what clients do wrong is answered, and no news of ours
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
    )
    config.load()
    return config
