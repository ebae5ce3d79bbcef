"""The client for asyncio: `slabwire.connect_async(...)`, the same verbs, awaited."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from threading import get_ident
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeVar

from ...shm.bell import now_ns
from ..actor.stream_group import OnItems, StreamGroup
from ..dataplane.async_calls import AsyncCalls
from ..dataplane.pending import deadline_of
from ..dataplane.stream_group import ReadGroup
from ..errors import ClientClosed, Disconnected, SlabwireError
from ..host.forks import forked_error, part_in_children
from .async_connection import AsyncLocalConnection
from .client import CALL_TIMEOUT_S, withdrawn_error
from .connection import is_address
from .retry import Attempts, Retry, key_of, retry_of, sends_once

if TYPE_CHECKING:
    from .async_remote_connection import AsyncRemoteConnection

T = TypeVar("T")


class AsyncClient:
    """Calls the exposed ports of a running graph, as `Client` and with its settings. Opened by `async with`.

    It belongs to the loop, and the thread, that opened it; any number of tasks share it.
    """

    def __init__(
        self, where: str, keys: Path | str | None = None, *, retries: int | Retry = 0, wait_s: float | None = None
    ) -> None:
        self._where, self._keys, self._wait_s = where, keys, wait_s
        self._is_address = is_address(where, keys)
        self._whose = where if self._is_address else f"graph {where!r}"
        self._retry = retry_of(retries)
        self._connection: AsyncLocalConnection | AsyncRemoteConnection | None = None
        # Those that are open, with the task of each.
        self._streams: dict[AsyncGenerator[Any, None], asyncio.Task[Any] | None] = {}
        part_in_children(self)

    def part(self) -> None:
        """In a forked child, where the loop is not."""

        def refuse(*_: Any) -> NoReturn:
            raise forked_error(self._whose, f"slabwire.connect_async({self._where!r})")

        vars(self).update(_ready=refuse)

    async def open(self) -> Self:
        """Connects. Raises what `Client` does."""
        self._loop, self._thread = asyncio.get_running_loop(), get_ident()
        connection: AsyncLocalConnection | AsyncRemoteConnection = AsyncLocalConnection(self._where)
        if self._is_address:
            from .async_remote_connection import AsyncRemoteConnection

            connection = AsyncRemoteConnection(self._where, self._keys)
        await connection.open(self._wait_s)
        self._connection = connection
        return self

    @property
    def _open(self) -> AsyncLocalConnection | AsyncRemoteConnection:
        if self._connection is None:
            raise ClientClosed(f"this client of {self._whose} is not open; use `async with`")
        return self._connection

    @property
    def name(self) -> str:
        """Of the graph. Raises ClientClosed for an address before it is open."""
        return self._open.name if self._is_address else self._where

    @property
    def ports(self) -> list[str]:
        """The exposed ports, as `actor.port`. Raises ClientClosed while it is not open."""
        return self._open.ports

    def _ready(self) -> AsyncCalls | None:
        """Where calls begin; None where the connection must be made anew first. Raises ClientClosed."""
        connection = self._connection or self._open
        # Before Python 3.12 to ask for the running loop takes a system call.
        if get_ident() != self._thread or not self._loop.is_running():
            raise ClientClosed(
                f"this client of {self._whose} was opened in another event loop, and works there alone; open one in "
                "each loop (each asyncio.run makes a loop)"
            )
        return connection.ready()

    async def _live(self, deadline_ns: int) -> AsyncCalls:
        return self._ready() or await self._open.live(deadline_ns)

    async def call(
        self,
        target: str,
        /,
        *args: Any,
        timeout_s: float | None = CALL_TIMEOUT_S,
        retries: int | Retry | None = None,
        idempotency_key: str | bool | None = None,
        **fields: Any,
    ) -> Any:
        """The answer of port `target`; as `Client.call`. Cancelling the task cancels the work. A field that is a stream
        may be an asynchronous iterable, too; a task reads it.
        """
        deadline_ns = deadline_of(timeout_s)
        key, retry = "", self._retry
        if idempotency_key is not None or retries is not None:
            key, retry = key_of(idempotency_key), retry_of(retries, retry)
        if (key or retry is not None) and self._open.check(target, args, fields):
            sends_once(key, target)
            retry = None
        if retry is None:
            calls = self._ready() or await self._live(deadline_ns)
            return await calls.call(target, args, fields, deadline_ns, key=key)

        async def ask() -> Any:
            return await (await self._live(deadline_ns)).call(target, args, fields, deadline_ns, key=key)

        return await _again(ask, Attempts(retry, key, deadline_ns))

    def stream(
        self,
        target: str,
        /,
        *args: Any,
        timeout_s: float | None = None,
        retries: int | Retry | None = None,
        idempotency_key: str | bool | None = None,
        **fields: Any,
    ) -> AsyncGenerator[Any, None]:
        """The items of a stream, as they come; closing the iterator cancels the rest. As `Client.stream`."""
        key, retry = key_of(idempotency_key), retry_of(retries, self._retry)
        if self._open.check(target, args, fields):
            sends_once(key, target)
            retry = None
        return self._items(target, args, fields, Attempts(retry, key, deadline_of(timeout_s)))

    async def _items(
        self, target: str, args: tuple[Any, ...], fields: dict[str, Any], attempts: Attempts
    ) -> AsyncGenerator[Any, None]:
        async def start() -> AsyncGenerator[Any, None]:
            calls = await self._live(attempts.deadline_ns)
            return await calls.started(target, args, fields, attempts.deadline_ns, key=attempts.key)

        items = await _again(start, attempts)
        self._streams[items] = asyncio.current_task()
        try:
            while True:
                try:
                    yield await anext(items)  # no name here keeps the item
                except StopAsyncIteration:
                    if items in self._streams:
                        return
                    raise withdrawn_error(self._whose) from None
        finally:
            self._streams.pop(items, None)
            await items.aclose()

    def streams(self, on_items: OnItems | None = None) -> StreamGroup:
        """A group of streams that are read together: of this graph's ports, any number of them (`client_calls` of
        `Graph`; 1,024 at an address). They end with the connection. Raises ClientClosed, or Disconnected.
        """
        calls = self._ready()
        if calls is None:
            raise Disconnected(f"{self._whose} has ended, or has not answered yet; the next call connects anew")
        return ReadGroup(calls, self._loop, on_items)

    async def withdraw(self) -> None:
        """Ends the streams that this task has begun, as `Client.withdraw` those of a thread."""
        for items, task in list(self._streams.items()):
            if task is asyncio.current_task():
                del self._streams[items]
                await items.aclose()

    async def close(self) -> None:
        """Ends the connection: calls in flight fail with ClientClosed. Arrays that were received stay valid."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


async def _again(start: Callable[[], Awaitable[T]], attempts: Attempts) -> T:
    """What `start` gives, by as many attempts as may be made."""
    while True:
        try:
            return await start()
        except SlabwireError as error:
            pause_s = attempts.pause_s(error, now_ns())
            if pause_s is None:
                raise
        await asyncio.sleep(pause_s)
