"""The client SDK for asyncio: `slabwire.connect_async(...)`, the same verbs, awaited."""

from __future__ import annotations

import asyncio
import select
from collections.abc import AsyncGenerator, Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeVar

from ...shm.bell import now_ns
from ..dataplane.async_calls import AsyncCalls
from ..dataplane.caller import deadline_of
from ..errors import ClientClosed, Disconnected, Overloaded, SlabwireError, untouched
from ..host.forks import forked_error, part_in_children
from .client import CALL_TIMEOUT_S, LOOK_AGAIN_S, late_answer, seconds_for_an_answer
from .local import LocalConnection
from .retry import Attempts, Retry, key_of, retry_of

if TYPE_CHECKING:
    pass

T = TypeVar("T")

# The loop tells of a graph's end, unless it was held up. A look costs a system call.
_LOOK_EVERY_NS = 1_000_000


class AsyncClient:
    """Talks to a running graph on this host through shared memory. Opened by `async with`; one loop, one thread.

    When the graph has ended, calls in flight fail with Disconnected; the next call connects anew. `retries` and
    `wait_s` are as for `Client`.
    """

    def __init__(self, name: str, *, retries: int | Retry = 0, wait_s: float = 0.0) -> None:
        self.name = name
        self._retry = retry_of(retries)
        self._wait_s = wait_s
        self._connection: LocalConnection | None = None
        self._is_gone = False
        self._renewing = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None  # looks again, though nobody has rung
        self._looked_ns = 0
        # Those that are open, with the task of each.
        self._streams: dict[AsyncGenerator[Any, None], asyncio.Task[Any] | None] = {}
        part_in_children(self)

    def part(self) -> None:
        """In a forked child, where neither the memory is nor the loop."""

        def refuse(*_: Any) -> NoReturn:
            raise forked_error(f"graph {self.name!r}", f"slabwire.connect_async({self.name!r})")

        if self._connection is not None:
            vars(self).update(_live=refuse, _leave=lambda *_: None)

    async def open(self) -> Self:
        """Connects. Raises Disconnected if no such graph runs."""
        self._loop = asyncio.get_running_loop()
        until_ns = deadline_of(self._wait_s)
        while True:
            try:
                self._enter(await self._connected(0))
                return self
            except Disconnected:
                if now_ns() >= until_ns:
                    raise
            await asyncio.sleep(LOOK_AGAIN_S)

    async def _connected(self, deadline_ns: int) -> LocalConnection:
        within_s = seconds_for_an_answer(deadline_ns)
        opening = self._loop.run_in_executor(
            None, lambda: LocalConnection(self.name, may_spin=False, answer_within_s=within_s)
        )
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_close_opened)
            raise

    def _enter(self, connection: LocalConnection) -> None:
        self._connection = connection
        self._is_gone = False
        self.calls = AsyncCalls(connection.caller, connection.routing, inside=False)
        self._end = select.poll()
        self._end.register(connection.link.channel.fileno(), select.POLLIN)
        self._loop.add_reader(connection.bell.fd, self._take_in)
        self._loop.add_reader(connection.link.channel.fileno(), self._take_in)
        self._park()

    @property
    def _open(self) -> LocalConnection:
        if self._connection is None:
            raise ClientClosed(f"this client of graph {self.name!r} is not open; use `async with`")
        return self._connection

    async def _live(self, deadline_ns: int) -> AsyncCalls:
        """The calls of the connection, made anew if the graph has ended since. Raises Disconnected."""
        connection = self._open
        if asyncio.get_running_loop() is not self._loop:
            raise another_loop(f"graph {self.name!r}")
        now = now_ns()
        if now - self._looked_ns > _LOOK_EVERY_NS:
            self._looked_ns = now
            if not self._is_gone and self._end.poll(0):
                self._take_in()
        if self._is_gone:
            await self._renew(connection, deadline_ns)
        return self.calls

    async def _renew(self, connection: LocalConnection, deadline_ns: int) -> None:
        """Connects anew in place of a connection, unless another task has."""
        try:
            async with asyncio.timeout(max(0.0, (deadline_ns - now_ns()) / 1e9) if deadline_ns else None):
                await self._renewing.acquire()
        except TimeoutError:
            raise late_answer(self.name) from None
        try:
            if self._open is connection:
                self._replace(connection, await self._connected(deadline_ns))
        except (Disconnected, Overloaded) as error:
            raise untouched(error) from None
        finally:
            self._renewing.release()

    def _replace(self, old: LocalConnection, fresh: LocalConnection) -> None:
        if self._connection is None:  # closed meanwhile
            fresh.close()
            raise ClientClosed(f"this client of graph {self.name!r} is closed")
        self._leave(old)
        self._enter(fresh)

    @property
    def ports(self) -> list[str]:
        """The exposed ports, as `actor.port`."""
        spec = self._open.routing.spec
        return [str(route.entry) for route in spec.routes[: spec.exposed]]

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
        """The answer of port `target`; as `Client.call`. Cancelling the task cancels the work."""
        deadline_ns = deadline_of(timeout_s)
        key, retry = key_of(idempotency_key), retry_of(retries, self._retry)

        async def ask() -> Any:
            return await (await self._live(deadline_ns)).call(target, args, fields, deadline_ns, key=key)

        return await again(ask, Attempts(retry, key, deadline_ns)) if retry is not None else await ask()

    async def stream(
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
        deadline_ns = deadline_of(timeout_s)
        key, retry = key_of(idempotency_key), retry_of(retries, self._retry)

        async def start() -> AsyncGenerator[Any, None]:
            calls = await self._live(deadline_ns)
            return await calls.started(target, args, fields, deadline_ns, key=key)

        items = await again(start, Attempts(retry, key, deadline_ns)) if retry is not None else await start()
        self._streams[items] = asyncio.current_task()
        try:
            while True:
                try:
                    yield await anext(items)  # no name here keeps the item
                except StopAsyncIteration:
                    if items in self._streams:
                        return
                    text = f"graph {self.name!r} was stopped by whoever was to read this stream"
                    raise ClientClosed(text) from None
        finally:
            self._streams.pop(items, None)
            await items.aclose()

    async def withdraw(self) -> None:
        """Ends the streams that this task has begun, as `Client.withdraw` those of a thread."""
        for items, task in list(self._streams.items()):
            if task is asyncio.current_task():
                del self._streams[items]
                await items.aclose()

    def _take_in(self) -> None:
        connection = self._connection
        if connection is None or self._is_gone:
            return
        connection.wait.end_park()
        try:
            connection.take_in()
        except Disconnected:
            self._is_gone = True
            self._listen_no_more(connection)
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

    def _listen_no_more(self, connection: LocalConnection) -> None:
        if self._loop.is_closed():
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._loop.remove_reader(connection.bell.fd)
        self._loop.remove_reader(connection.link.channel.fileno())

    def _leave(self, connection: LocalConnection) -> None:
        if not self._is_gone:
            self._listen_no_more(connection)
        connection.caller.pump()  # an answer that has come is no call in flight
        connection.caller.fail_all(ClientClosed("the client was closed"))
        connection.close()

    async def close(self) -> None:
        """Ends the connection: calls in flight fail. Arrays that were received stay valid."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._leave(connection)

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def another_loop(whose: str) -> ClientClosed:
    """The error of a call in a loop that hears nothing of its client's answers."""
    return ClientClosed(
        f"this client of {whose} was opened in another event loop, and works there alone; open one in each loop "
        "(each asyncio.run makes a loop)"
    )


async def again(start: Callable[[], Awaitable[T]], attempts: Attempts) -> T:
    """What `start` gives, by as many attempts as may be made."""
    while True:
        try:
            return await start()
        except SlabwireError as error:
            pause_s = attempts.pause_s(error, now_ns())
            if pause_s is None:
                raise
        await asyncio.sleep(pause_s)


def _close_opened(opening: asyncio.Future[LocalConnection]) -> None:
    """Whoever wanted it was cancelled while it was being opened."""
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()
