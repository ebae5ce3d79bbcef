"""The client SDK for asyncio: `slabwire.connect_async(...)`, the same verbs, awaited."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ..shm.bell import now_ns
from .caller import deadline_of
from .calls import AsyncCalls
from .client import CALL_TIMEOUT_S
from .errors import Disconnected
from .local import LocalConnection

if TYPE_CHECKING:
    from .async_remote import AsyncRemoteClient


class AsyncClient:
    """Talks to a running graph on this host through shared memory. Opened by `async with`; one loop, one thread."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._connection: LocalConnection | None = None
        self._gone: Disconnected | None = None
        self._timer: asyncio.TimerHandle | None = None  # looks again, though nobody has rung

    async def open(self) -> Self:
        """Connects. Raises Disconnected if no such graph runs."""
        self._loop = asyncio.get_running_loop()
        connection = self._connection = await asyncio.to_thread(LocalConnection, self.name, may_spin=False)
        self.calls = AsyncCalls(connection.caller, connection.routing, inside=False)
        self._loop.add_reader(connection.bell.fd, self._take_in)
        self._loop.add_reader(connection.link.channel.fileno(), self._take_in)
        self._park()
        return self

    @property
    def _open(self) -> LocalConnection:
        if self._connection is None:
            raise Disconnected(f"this client of graph {self.name!r} is not open; use `async with`")
        if self._gone is not None:
            raise self._gone
        return self._connection

    @property
    def ports(self) -> list[str]:
        """The exposed ports, as `actor.port`."""
        spec = self._open.routing.spec
        return [str(route.entry) for route in spec.routes[: spec.exposed]]

    async def call(self, target: str, /, *args: Any, timeout_s: float | None = CALL_TIMEOUT_S, **fields: Any) -> Any:
        """The answer of port `target`; as `Client.call`. Cancelling the task cancels the work."""
        _ = self._open
        return await self.calls.call(target, args, fields, deadline_of(timeout_s))

    def stream(
        self, target: str, /, *args: Any, timeout_s: float | None = None, **fields: Any
    ) -> AsyncGenerator[Any, None]:
        """The items of a stream, as they come; closing the iterator cancels the rest."""
        _ = self._open
        return self.calls.stream(target, args, fields, deadline_of(timeout_s))

    def _take_in(self) -> None:
        connection = self._connection
        if connection is None:
            return
        connection.wait.end_park()
        try:
            connection.take_in()
        except Disconnected as gone:
            self._loop.remove_reader(connection.link.channel.fileno())
            self._gone = gone
            return
        self._park()

    def _park(self) -> None:
        """Announces the sleep. asyncio's loop may sleep any time from here on, so the lanes are looked at once more."""
        connection = self._open
        look_at = connection.endpoint.trim(now_ns())
        left_s = max(0.0, (look_at - now_ns()) / 1e9) if look_at else None
        longest_s = connection.wait.begin_park(connection.endpoint.reasons(), self._has_news, left_s)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if longest_s is None else self._loop.call_later(longest_s, self._take_in)

    def _has_news(self) -> bool:
        self._open.endpoint.collect_forwards()
        return self._open.caller.has_news()

    async def close(self) -> None:
        """Ends the connection: calls in flight fail. Arrays that were received stay valid."""
        connection, self._connection = self._connection, None
        if self._timer is not None:
            self._timer.cancel()
        if connection is not None:
            self._loop.remove_reader(connection.bell.fd)
            self._loop.remove_reader(connection.link.channel.fileno())
            connection.caller.fail_all(Disconnected("the client was closed"))
            connection.close()

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def connect_async(where: str, *, keys: Path | str | None = None) -> AsyncClient | AsyncRemoteClient:
    """As `connect`, for `async with`."""
    if "://" in where:
        from .async_remote import AsyncRemoteClient

        return AsyncRemoteClient(where, keys)
    return AsyncClient(where)
