"""Calls and streams, awaited: what asyncio clients, coroutine handlers and the gateway share."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from typing import Any, Protocol

from ...shm.bell import now_ns
from ..errors import DeadlineExceeded, mark_not_begun
from ..message.capacities import MOST_ASIDE
from ..message.header import Kind
from .caller import timed_out
from .pending import Pending


class Begins(Protocol):
    """Where calls begin: a `Caller`, or a connection to a gateway. `checked` gives what `begin` takes."""

    def checked(self, target: str, args: tuple[Any, ...], fields: dict[str, Any], *, stream: bool) -> Any:
        """A call, checked against its port. Raises UnknownPort or MessageError."""

    @property
    def begin(self) -> Callable[..., Pending]:
        """Sends it, with `deadline_ns` and `notify`, and perhaps `trace`, `key` and `aside`."""

    def cancel(self, pending: Pending) -> None:
        """Says that nobody waits for the rest; nothing where the call has ended."""


class AsyncCalls:
    """Begins calls and waits for them on the running loop: `places` at once, others wait. One loop, one thread."""

    def __init__(self, begins: Begins, places: int) -> None:
        self.begins = begins
        self._most = places
        self._places = asyncio.Semaphore(places)
        self._places_aside = asyncio.Semaphore(MOST_ASIDE)

    async def call(
        self,
        target: str,
        args: tuple[Any, ...],
        fields: dict[str, Any],
        deadline_ns: int,
        trace: tuple[int, int] = (0, 0),
        key: str = "",
    ) -> Any:
        """The one answer. Raises what the call ended with."""
        request = self.begins.checked(target, args, fields, stream=False)
        await self._take_place(deadline_ns, target)
        try:
            return await self._answer(target, request, deadline_ns, trace=trace, key=key)
        finally:
            self._places.release()

    async def aside(self, target: str, deadline_ns: int) -> Any:
        """The answer of a port that needs no fields, by a place beside those of all other calls and streams.

        Raises what the call ended with.
        """
        request = self.begins.checked(target, (), {}, stream=False)
        async with self._places_aside:
            return await self._answer(target, request, deadline_ns, aside=True)

    async def _answer(self, target: str, request: Any, deadline_ns: int, **how: Any) -> Any:
        arrived = asyncio.Event()
        pending = self.begins.begin(request, deadline_ns=deadline_ns, notify=arrived.set, **how)
        try:
            await _arrival(arrived, deadline_ns, target)
        finally:
            self.begins.cancel(pending)
            if pending.stream is not None:
                await pending.stream.closed()
        return pending.result()

    async def stream(
        self,
        target: str,
        args: tuple[Any, ...],
        fields: dict[str, Any],
        deadline_ns: int,
        trace: tuple[int, int] = (0, 0),
    ) -> AsyncGenerator[Any, None]:
        """The items, as they come; closing the iterator cancels the rest."""
        async with contextlib.aclosing(await self.started(target, args, fields, deadline_ns, trace)) as items:
            async for item in items:
                yield item

    async def started(
        self,
        target: str,
        args: tuple[Any, ...],
        fields: dict[str, Any],
        deadline_ns: int,
        trace: tuple[int, int] = (0, 0),
        key: str = "",
    ) -> AsyncGenerator[Any, None]:
        """A stream of which something has come. Raises the error that came in its place."""
        request = self.begins.checked(target, args, fields, stream=True)
        await self._take_place(deadline_ns, target)
        arrived = asyncio.Event()
        pending: Pending | None = None
        try:
            pending = self.begins.begin(request, deadline_ns=deadline_ns, trace=trace, notify=arrived.set, key=key)
            await _arrival(arrived, deadline_ns, target)
            if pending.next_kind() is Kind.ERROR:
                pending.result()
        except BaseException:
            await self._end(pending)
            raise
        items = self._items(pending, arrived, deadline_ns, target)
        await anext(items)
        return items

    async def _take_place(self, deadline_ns: int, target: str) -> None:
        """Waits for a place among the calls in flight. Raises DeadlineExceeded."""
        if not (deadline_ns and self._places.locked()):
            await self._places.acquire()
            return
        try:
            async with until(deadline_ns):
                await self._places.acquire()
        except TimeoutError:
            text = f"{target} was not asked in time: {self._most} calls are in flight already; allow more of them"
            raise mark_not_begun(DeadlineExceeded(text)) from None

    async def _end(self, pending: Pending | None) -> None:
        if pending is not None:
            self.begins.cancel(pending)
        self._places.release()
        if pending is not None and pending.stream is not None:
            await pending.stream.closed()

    async def _items(
        self, pending: Pending, arrived: asyncio.Event, deadline_ns: int, target: str
    ) -> AsyncGenerator[Any, None]:
        try:
            yield None  # from here on it hears of its end
            while True:
                while pending.arrived:
                    kind = pending.next_kind()
                    if kind is Kind.END:
                        return
                    yield pending.result()  # no name here keeps the item, or the error
                    if kind is Kind.REPLY:
                        return
                arrived.clear()
                await _arrival(arrived, deadline_ns, target)
        finally:
            await self._end(pending)


async def _arrival(arrived: asyncio.Event, deadline_ns: int, target: str) -> None:
    if not deadline_ns:
        await arrived.wait()
        return
    try:
        async with until(deadline_ns):
            await arrived.wait()
    except TimeoutError:
        raise timed_out(target) from None


def until(deadline_ns: int) -> asyncio.Timeout:
    """The time that is left until a deadline (0: none), for an `async with`."""
    return asyncio.timeout(max(0.0, (deadline_ns - now_ns()) / 1e9) if deadline_ns else None)
