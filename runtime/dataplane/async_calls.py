"""Calls and streams, awaited: what asyncio clients and coroutine handlers share."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any

from ...shm.bell import now_ns
from ..errors import DeadlineExceeded, MessageError, SlabwireError, untouched
from ..graph.compiled import Routing
from ..message.capacities import MOST_ASIDE, MOST_CALLS
from ..message.header import Kind
from .caller import Caller, Pending, result_of


class AsyncCalls:
    """Begins calls on a Caller and waits for them on the running loop. One loop, one thread."""

    def __init__(self, caller: Caller, routing: Routing, *, inside: bool) -> None:
        self._caller = caller
        self._routing = routing
        self._inside = inside
        self._places = asyncio.Semaphore(MOST_CALLS)
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
        message = message_for(self._routing, target, args, fields, inside=self._inside, stream=False)
        await self._take_place(deadline_ns, target)
        try:
            return await self._answer(target, message, deadline_ns, trace=trace, key=key)
        finally:
            self._places.release()

    async def aside(self, target: str, deadline_ns: int) -> Any:
        """The answer of a port that needs no fields, by a place beside those of all other calls and streams.

        Raises what the call ended with.
        """
        message = message_for(self._routing, target, (), {}, inside=self._inside, stream=False)
        async with self._places_aside:
            return await self._answer(target, message, deadline_ns, aside=True)

    async def _answer(self, target: str, message: dict[str, Any], deadline_ns: int, **how: Any) -> Any:
        arrived = asyncio.Event()
        pending = self._caller.begin(target, message, deadline_ns=deadline_ns, notify=arrived.set, **how)
        try:
            await _arrival(arrived, deadline_ns, target)
        finally:
            self._caller.cancel(pending)
        return result_of(*pending.take())

    def places_at(self, actor: str) -> int:
        """How many inputs an actor takes at a time, all of its replicas together; 0 where there is no such actor."""
        return sum(each.concurrency * each.replicas for each in self._routing.spec.actors if each.name == actor)

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
        message = message_for(self._routing, target, args, fields, inside=self._inside, stream=True)
        await self._take_place(deadline_ns, target)
        arrived = asyncio.Event()
        pending: Pending | None = None
        try:
            pending = self._caller.begin(
                target, message, deadline_ns=deadline_ns, trace=trace, notify=arrived.set, key=key
            )
            await _arrival(arrived, deadline_ns, target)
            if pending.next_kind() == Kind.ERROR:
                result_of(*pending.take())
        except BaseException:
            self._end(pending)
            raise
        items = self._started(pending, arrived, deadline_ns, target)
        await anext(items)
        return items

    async def _take_place(self, deadline_ns: int, target: str) -> None:
        """Waits for a place among the calls in flight. Raises DeadlineExceeded."""
        if not (deadline_ns and self._places.locked()):
            await self._places.acquire()
            return
        try:
            async with asyncio.timeout(max(0.0, (deadline_ns - now_ns()) / 1e9)):
                await self._places.acquire()
        except TimeoutError:
            text = f"{target} was not asked in time: {MOST_CALLS} calls of this client are in flight; use a second one"
            raise untouched(DeadlineExceeded(text)) from None

    def _end(self, pending: Pending | None) -> None:
        if pending is not None:
            self._caller.cancel(pending)
        self._places.release()

    async def _started(
        self, pending: Pending, arrived: asyncio.Event, deadline_ns: int, target: str
    ) -> AsyncGenerator[Any, None]:
        try:
            yield None  # from here on it hears of its end
            async for item in _items(pending, arrived, deadline_ns, target):
                yield item
        finally:
            self._end(pending)


async def _items(pending: Pending, arrived: asyncio.Event, deadline_ns: int, target: str) -> AsyncGenerator[Any, None]:
    while True:
        while pending.arrived:
            kind = pending.next_kind()
            if kind == Kind.END:
                return
            yield result_of(*pending.take())  # no name here keeps the item, or the error
            if kind == Kind.REPLY:
                return
        arrived.clear()
        await _arrival(arrived, deadline_ns, target)


async def _arrival(arrived: asyncio.Event, deadline_ns: int, target: str) -> None:
    if not deadline_ns:
        await arrived.wait()
        return
    try:
        async with asyncio.timeout(max(0.0, (deadline_ns - now_ns()) / 1e9)):
            await arrived.wait()
    except TimeoutError:
        raise timed_out(target) from None


def message_for(
    routing: Routing, target: str, args: tuple[Any, ...], fields: dict[str, Any], *, inside: bool, stream: bool
) -> dict[str, Any]:
    """The fields of a call's message, checked against the port. Raises UnknownPort or MessageError."""
    route = routing.route(target, inside=inside)
    intake, streams = routing.intake(route)
    if streams and not stream:
        raise MessageError(f"{target} answers with a stream; use stream({target!r}, ...) in place of call")
    return intake.fields(args, fields)


def timed_out(target: str) -> SlabwireError:
    """What a caller gets whose time has run out."""
    return DeadlineExceeded(f"{target} did not answer in time; give it longer by timeout_s=, or see `slabwire top`")
