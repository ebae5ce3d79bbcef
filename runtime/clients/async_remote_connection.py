"""A connection to a gateway over ZeroMQ for asyncio: one loop, one thread, any number of tasks."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...shm.bell import now_ns
from ..dataplane.async_calls import AsyncCalls, until
from ..dataplane.pending import Pending
from ..host.forks import part_in_children
from ..remote.client_protocol import Packed
from ..remote.dealer import Dealer
from . import remote_connection
from .connection import closed_error
from .remote_connection import nothing_answers


class AsyncRemoteConnection:
    """One loop, one thread, any number of tasks. It goes on when the graph has gone and come back: ZeroMQ connects
    anew, and it says hello again.
    """

    _dealer: Dealer

    def __init__(self, address: str, keys: Path | str | None) -> None:
        self.whose = address
        self._keys = Path(keys) if keys is not None else None
        self._news = asyncio.Event()  # the hello was answered
        self.calls = AsyncCalls(self, sys.maxsize, asyncio.get_running_loop())  # the gateway counts them, and says so
        self._closed = False
        self._pumping: asyncio.Handle | None = None
        part_in_children(self)

    def part(self) -> None:
        """In a forked child, where neither ZeroMQ's threads are nor the loop."""
        vars(self).update(_closed=True, cancel=lambda _: None)

    async def open(self, wait_s: float | None) -> None:
        """Connects. Raises Disconnected when nothing answers within `wait_s` (5)."""
        self._loop = asyncio.get_running_loop()
        self._dealer = Dealer(self.whose, self._keys)
        self._session = self._dealer.session
        self._session.verdict.notify = self._news.set
        self._session.said = self._pump_soon
        for each in self._dealer.descriptors:
            self._loop.add_reader(each, self._dealer.pump)
        self._dealer.pump()
        try:
            await self._await_welcome(0, remote_connection.HELLO_WITHIN_S if wait_s is None else wait_s)
        except BaseException:
            await self.close()
            raise

    @property
    def name(self) -> str:
        """Of the graph that answers."""
        return self._session.ports.graph

    @property
    def ports(self) -> list[str]:
        """The exposed ports, as `actor.port`."""
        return self._session.ports.names

    def check(self, target: str, args: tuple[Any, ...], fields: dict[str, Any]) -> bool:
        """Says at once what is wrong with a call that is begun later; whether it sends a stream."""
        return self._session.pack(target, args, fields, stream=True).source is not None

    def ready(self) -> AsyncCalls | None:
        """Where calls begin; None where the gateway has not welcomed this client."""
        return self.calls if self._session.is_ready else None

    async def live(self, deadline_ns: int) -> AsyncCalls:
        """Where calls begin, once the gateway has welcomed this client. Raises Disconnected."""
        if not self._session.is_ready:
            await self._await_welcome(deadline_ns, remote_connection.HELLO_WITHIN_S)
        return self.calls

    def checked(self, target: str, args: tuple[Any, ...], fields: dict[str, Any], *, stream: bool) -> Packed:
        """A call, packed. It is copied: the loop goes on before it is sent, and somebody may change the arrays."""
        call = self._session.pack(target, args, fields, stream=stream)
        return call._replace(payload=[bytes(each) for each in call.payload])

    def begin(
        self,
        request: Packed,
        *,
        deadline_ns: int,
        notify: Callable[[], object],
        key: str = "",
        trace: tuple[int, int] = (0, 0),  # noqa: ARG002 - the gateway begins a trace
    ) -> Pending:
        """Sends a call. Raises Disconnected."""
        timeout_s = max(0.0, (deadline_ns - now_ns()) / 1e9) if deadline_ns else None
        pending = self._session.begin(request, timeout_s, notify, key=key)
        pending.answerer = self
        if pending.stream is not None:
            pending.stream.begin_task(self._loop)
        self._dealer.pump()
        return pending

    def note_read(self, request: int, items: int) -> None:
        """So many items of a stream have been read in all: the gateway may send more."""
        self._session.note_read(request, items)
        self._pump()

    def cancel(self, pending: Pending) -> None:
        """Says that nobody waits for the rest."""
        self._session.cancel(pending)
        self._pump()

    async def _await_welcome(self, deadline_ns: int, within_s: float) -> None:
        until_ns = now_ns() + int(within_s * 1e9)
        until_ns = min(until_ns, deadline_ns) if deadline_ns else until_ns
        while not self._session.is_ready:
            if self._closed:
                raise closed_error(self.whose)
            error = self._session.take_refusal()
            if error is not None:
                raise error
            self._news.clear()
            try:
                async with until(until_ns):
                    await self._news.wait()
            except TimeoutError:
                raise nothing_answers(self.whose, within_s) from None

    def _pump_soon(self) -> None:
        """A task has something to send. It is not pumped for in the task, which what comes may end."""
        if self._pumping is None:
            self._pumping = self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        self._pumping = None
        if not self._closed:
            self._dealer.pump()

    async def close(self) -> None:
        """Ends the connection: calls in flight fail. Arrays that were received stay valid."""
        if self._closed:
            return
        self._closed = True
        for each in self._dealer.descriptors:
            if not self._loop.is_closed():
                self._loop.remove_reader(each)
        self._dealer.leave()
        await asyncio.to_thread(self._dealer.close)
