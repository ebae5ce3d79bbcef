"""Calls and streams, awaited: what asyncio clients, coroutine handlers and the gateway share."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, Protocol

from ...shm.bell import now_ns
from ..errors import DeadlineExceeded, Overloaded, mark_not_begun
from ..message.capacities import MOST_ASIDE
from ..message.header import Kind
from .deadlines import Deadlines, Wait
from .pending import Pending, timed_out
from .places import Places


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
    """Begins calls and waits for them on `loop`: `places` at once, others wait. One thread."""

    def __init__(self, begins: Begins, places: int, loop: asyncio.AbstractEventLoop) -> None:
        self.begins = begins
        self._places, self._places_aside = Places(places), Places(MOST_ASIDE)
        self._loop = loop
        self.deadlines = Deadlines(loop)

    def begin_stream(self, request: Any, **how: Any) -> Pending:
        """A stream of a request that was checked, begun at once with what `begin` takes; `end_stream` must end it.
        Raises Overloaded where no place is free, and what `begin` raises.
        """
        if not self._places.try_take():
            raise mark_not_begun(Overloaded(f"{self._places.most} calls are in flight already; allow more of them"))
        try:
            return self.begins.begin(request, **how)
        except BaseException:
            self._places.give_back()
            raise

    def end_stream(self, pending: Pending) -> None:
        """It has come to its end, or nobody wants the rest."""
        self.begins.cancel(pending)
        self._places.give_back()

    def call(
        self,
        target: str,
        args: tuple[Any, ...],
        fields: dict[str, Any],
        deadline_ns: int,
        trace: tuple[int, int] = (0, 0),
        key: str = "",
    ) -> Coroutine[Any, Any, Any]:
        """The one answer, to be awaited. Raises what is wrong with the call, and then what the call ended with."""
        request = self.begins.checked(target, args, fields, stream=False)
        return self._answer(self._places, target, request, deadline_ns, trace=trace, key=key)

    async def aside(self, target: str, deadline_ns: int) -> Any:
        """The answer of a port that needs no fields, by a place beside those of all other calls and streams.

        Raises what the call ended with.
        """
        request = self.begins.checked(target, (), {}, stream=False)
        return await self._answer(self._places_aside, target, request, deadline_ns, aside=True)

    async def _answer(self, places: Places, target: str, request: Any, deadline_ns: int, **how: Any) -> Any:
        if not places.try_take():
            await self._wait_for_place(places, deadline_ns, target)
        wait = Wait(deadline_ns, self._loop)
        if deadline_ns:
            self.deadlines.add(wait)
        pending: Pending | None = None
        try:
            pending = self.begins.begin(request, deadline_ns=deadline_ns, notify=wait.wake, **how)
            await wait.future
        finally:
            # The one answer: nothing is left to cancel.
            has_come = pending is not None and pending.arrived and pending.arrived[-1][0] is not Kind.ITEM
            self._end(None if has_come else pending, wait, places)
            if pending is not None and pending.stream is not None:
                await pending.stream.closed()
        if wait.is_late and not pending.arrived:
            raise timed_out(target)
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
        if not self._places.try_take():
            await self._wait_for_place(self._places, deadline_ns, target)
        wait = Wait(deadline_ns, self._loop)
        if deadline_ns:
            self.deadlines.add(wait)
        pending: Pending | None = None
        try:
            pending = self.begins.begin(request, deadline_ns=deadline_ns, trace=trace, notify=wait.wake, key=key)
            await _arrival(pending, wait, target)
            if pending.next_kind() is Kind.ERROR:
                pending.result()
        except BaseException:
            await self._end_stream(pending, wait)
            raise
        items = self._items(pending, wait, target)
        await anext(items)
        return items

    async def _wait_for_place(self, places: Places, deadline_ns: int, target: str) -> None:
        """Takes a place among the calls in flight. Raises DeadlineExceeded."""
        try:
            async with until(deadline_ns):
                await places.take()
        except TimeoutError:
            text = f"{target} was not asked in time: {places.most} calls are in flight already; allow more of them"
            raise mark_not_begun(DeadlineExceeded(text)) from None

    def _end(self, pending: Pending | None, wait: Wait, places: Places) -> None:
        wait.is_over = True
        if wait.deadline_ns:
            self.deadlines.forget()
        if pending is not None:
            self.begins.cancel(pending)
        places.give_back()

    async def _end_stream(self, pending: Pending | None, wait: Wait) -> None:
        self._end(pending, wait, self._places)
        if pending is not None and pending.stream is not None:
            await pending.stream.closed()

    async def _items(self, pending: Pending, wait: Wait, target: str) -> AsyncGenerator[Any, None]:
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
                await _arrival(pending, wait, target)
        finally:
            await self._end_stream(pending, wait)


async def _arrival(pending: Pending, wait: Wait, target: str) -> None:
    """Returns when something has arrived. Raises DeadlineExceeded."""
    while not pending.arrived:
        if wait.is_late:
            raise timed_out(target)
        await wait.again()


def until(deadline_ns: int) -> asyncio.Timeout:
    """The time that is left until a deadline (0: none), for an `async with`."""
    return asyncio.timeout(max(0.0, (deadline_ns - now_ns()) / 1e9) if deadline_ns else None)
