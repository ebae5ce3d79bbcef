"""The client SDK over ZeroMQ for asyncio: the same verbs, awaited."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

from ...shm.bell import now_ns
from ..clients.async_client import again, another_loop
from ..clients.client import CALL_TIMEOUT_S
from ..clients.retry import Attempts, Retry, key_of, retry_of
from ..dataplane.async_calls import timed_out
from ..dataplane.caller import deadline_of
from ..errors import ClientClosed, untouched
from ..host.forks import forked_error, part_in_children
from .client_protocol import Pending, result_of
from .dealer import Dealer
from .protocol import Frame, Head, Kind, pack_head
from .remote_client import HELLO_WITHIN_S, nothing_answers


class AsyncRemoteClient:
    """`RemoteClient`, awaited. Opened by `async with`; one loop, one thread."""

    def __init__(
        self,
        address: str,
        keys: Path | str | None = None,
        *,
        retries: int | Retry = 0,
        wait_s: float | None = None,
    ) -> None:
        self.address = address
        self._retry = retry_of(retries)
        self._wait_s = wait_s
        self._keys = Path(keys) if keys is not None else None
        self._dealer: Dealer | None = None
        part_in_children(self)

    def part(self) -> None:
        """In a forked child, where neither ZeroMQ's threads are nor the loop."""

        def refuse(*_: Any, **__: Any) -> NoReturn:
            raise forked_error(self.address, f"slabwire.connect_async({self.address!r})")

        if self._dealer is not None:
            vars(self).update(_left=self._dealer, _dealer=None, _started=refuse, _arrival=refuse)

    async def open(self) -> Self:
        """Connects. Raises Disconnected when nothing answers within `wait_s` (5)."""
        self._loop = asyncio.get_running_loop()
        dealer = self._dealer = Dealer(self.address, self._keys)
        self._news = asyncio.Event()  # the connection became ready, or was refused
        for each in dealer.descriptors:
            self._loop.add_reader(each, self._pump)
        self._pump()
        try:
            await self._await_welcome(0, HELLO_WITHIN_S if self._wait_s is None else self._wait_s)
        except BaseException:
            await self.close()
            raise
        return self

    @property
    def _open(self) -> Dealer:
        if self._dealer is None:
            raise ClientClosed(f"this client of {self.address} is not open; use `async with`")
        return self._dealer

    @property
    def name(self) -> str:
        """Of the graph that answers."""
        return self._open.session.graph

    @property
    def ports(self) -> list[str]:
        """The exposed ports, as `actor.port`."""
        ports = self._open.session.ports
        return ports.names if ports is not None else []

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
        """The answer of port `target`; as `RemoteClient.call`. Cancelling the task cancels the work."""
        deadline_ns = deadline_of(timeout_s)
        key, retry = key_of(idempotency_key), retry_of(retries, self._retry)
        pending, _ = await self._started(target, args, fields, deadline_ns, retry, key, stream=False)
        self._cancel(pending)
        return result_of(*pending.arrived.popleft())

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
        """The items of a stream, as they come; closing the iterator cancels the rest. As `RemoteClient.stream`."""
        deadline_ns = deadline_of(timeout_s)
        key, retry = key_of(idempotency_key), retry_of(retries, self._retry)
        pending, came = await self._started(target, args, fields, deadline_ns, retry, key, stream=True)
        try:
            while True:
                await self._arrival(pending, came, deadline_ns, target)
                kind, value = self._open.session.take(pending)
                self._pump()
                if kind == Kind.END:
                    return
                yield result_of(kind, value)
                if kind == Kind.REPLY:
                    return
        finally:
            self._cancel(pending)

    async def _started(
        self,
        target: str,
        args: tuple[Any, ...],
        fields: dict[str, Any],
        deadline_ns: int,
        retry: Retry | None,
        key: str,
        *,
        stream: bool,
    ) -> tuple[Pending, asyncio.Event]:
        """A request of which something has come back, which is no error after which it is made again."""

        async def start() -> tuple[Pending, asyncio.Event]:
            if asyncio.get_running_loop() is not self._loop:
                raise another_loop(self.address)
            pending, came = await self._begin(target, args, fields, deadline_ns, key, stream=stream)
            try:
                await self._arrival(pending, came, deadline_ns, target)
                if pending.arrived[0][0] == Kind.ERROR:
                    result_of(*pending.arrived.popleft())
            except BaseException:
                self._cancel(pending)
                raise
            return pending, came

        return await again(start, Attempts(retry, key, deadline_ns)) if retry is not None else await start()

    async def _begin(
        self, target: str, args: tuple[Any, ...], fields: dict[str, Any], deadline_ns: int, key: str, *, stream: bool
    ) -> tuple[Pending, asyncio.Event]:
        session = self._open.session
        if not session.is_ready:
            await self._await_welcome(deadline_ns, HELLO_WITHIN_S)
        # Copied: the loop goes on before it is sent, and somebody may change the arrays.
        payload: list[Frame] = [bytes(each) for each in session.pack(target, args, fields, stream=stream)]
        timeout_s = max(0.0, (deadline_ns - now_ns()) / 1e9) if deadline_ns else None
        came = asyncio.Event()
        pending = session.begin(target, payload, timeout_s, came.set, stream=stream, key=key)
        self._pump()
        return pending, came

    async def _await_welcome(self, deadline_ns: int, within_s: float) -> None:
        until = now_ns() + int(within_s * 1e9)
        until = min(until, deadline_ns) if deadline_ns else until
        session = self._open.session
        while not session.is_ready:
            if session.refused is not None:
                error, session.refused = session.refused, None
                session.connected()  # asks once more, for whoever calls next
                raise untouched(error)
            self._news.clear()
            try:
                async with asyncio.timeout(max(0.0, (until - now_ns()) / 1e9)):
                    await self._news.wait()
            except TimeoutError:
                raise nothing_answers(self.address, within_s) from None
            _ = self._open

    async def _arrival(self, pending: Pending, came: asyncio.Event, deadline_ns: int, target: str) -> None:
        while not pending.arrived:
            came.clear()
            try:
                async with asyncio.timeout(max(0.0, (deadline_ns - now_ns()) / 1e9) if deadline_ns else None):
                    await came.wait()
            except TimeoutError:
                raise timed_out(target) from None

    def _cancel(self, pending: Pending) -> None:
        if self._dealer is not None:
            self._dealer.session.cancel(pending)
            self._pump()

    def _pump(self) -> None:
        if self._dealer is not None:
            self._dealer.pump()
            if self._dealer.session.is_ready or self._dealer.session.refused is not None:
                self._news.set()

    async def close(self) -> None:
        """Ends the connection: calls in flight fail. Arrays that were received stay valid."""
        dealer, self._dealer = self._dealer, None
        if dealer is None:
            return
        for each in dealer.descriptors:
            if not self._loop.is_closed():
                self._loop.remove_reader(each)
        if dealer.session.is_ready:
            dealer.session.outbox.append([pack_head(Head(Kind.BYE)), b"\xc0"])
            dealer.pump()
        dealer.session.lost(ClientClosed("the client was closed"))
        self._news.set()
        await asyncio.to_thread(dealer.close)

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
