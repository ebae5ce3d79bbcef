"""HTTP/1.1 over secured connections: uvicorn's protocol, without its server, on the loop that is running.

Nothing here ticks: while no connection is open nothing runs, and an idle connection has one timer, that of its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Sequence
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ..tls.entrance import Entrance
from ..tls.terminator import Terminator
from .connection import Connection, State
from .connection_limit import ConnectionLimit

logger = logging.getLogger("slabwire")

# Longer than the clients' pools keep an idle connection (5 s in httpx, 60 s in common load balancers): so it is they
# who close, and no request meets a connection that is just going away.
KEEP_ALIVE_S = 75
# What requests that were cut off get to end, before their tasks are cancelled.
CUT_WITHIN_S = 1.0


class HttpServer:
    """Serves one ASGI application. Made, started and stopped on one running loop.

    At most `connections` are open at a time, those that still shake hands among them; new ones wait in the kernel until
    another has made room for them, as `ConnectionLimit` says.
    """

    def __init__(self, application: Callable[..., Any], terminator: Terminator, *, connections: int = 256) -> None:
        self.terminator = terminator
        self.state = State()
        config, room = _config(application), ConnectionLimit(connections, self.state)
        self._entrance = Entrance(
            terminator,
            lambda: Connection(config, self.state),
            lambda: room.make(self._entrance),
            self.state.changed.set,
        )

    def start(self, listeners: Sequence[socket.socket]) -> None:
        """Serves what comes to these listening sockets, non-blocking and all on one port, and takes them over."""
        self._entrance.open(listeners)

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._entrance.port

    def stats(self) -> dict[str, int]:
        """Connections that are open, requests that run; and counted: those answered, refused, failed handshakes."""
        return {
            "connections": len(self.state.connections),
            "handshakes": len(self._entrance.handshakes),
            "running": len(self.state.tasks),
            "requests": self.state.total_requests,
            "refused": self.state.refused,
            "failed_handshakes": self._entrance.failed_handshakes,
        }

    # -- the end -----------------------------------------------------------------------------------------------------

    async def stop(self, grace_s: float, tell: Callable[[], None] | None = None) -> None:
        """Takes no more connections, lets requests in flight end within `grace_s`, then cuts what is left: first those
        end that `tell` reaches, then their connections.
        """
        await self._entrance.close()
        for connection in list(self.state.connections):
            connection.shutdown()
        if not await self._empties(grace_s) and tell is not None:
            tell()
            await self._empties(CUT_WITHIN_S)
        await self._cut()

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
        reset_contextvars=True,  # a pipelined request must not begin with what the one before it has set
    )
    config.load()
    return config
