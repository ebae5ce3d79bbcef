"""A group of streams over one connection: takes in what has come of all of them, and grants credit by the portion."""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import AsyncIterator
from contextvars import copy_context
from typing import Any

from ...shm.bell import now_ns
from ..actor.stream_group import IncomingStream, OnItems, StreamGroup
from ..errors import SlabwireError
from ..message.header import Kind
from .async_calls import Begins
from .caller import deadline_of, timed_out
from .pending import Pending

_ITEM, _ERROR, _REPLY = Kind.ITEM, Kind.ERROR, Kind.REPLY


class GroupedStream(IncomingStream):
    """One of them. `pending` is its call."""

    __slots__ = ("_error", "_group", "is_listed", "is_paused", "over", "pending", "target")

    def __init__(self, group: ReadGroup, target: str) -> None:
        self.tag = None
        self.target = target
        self.pending: Pending
        self.is_listed = False  # among those that something has come of
        self.is_paused = False
        self.over = False
        self._error: BaseException | None = None
        self._group = group

    @property
    def is_over(self) -> bool:
        return self.over

    @property
    def error(self) -> BaseException | None:
        return self._error

    def cancel(self) -> None:
        self._group.cancel(self)

    def pause(self) -> None:
        self.is_paused = True

    def resume(self) -> None:
        self.is_paused = False
        self.tell_read()

    def note(self) -> None:
        """Something has come."""
        if not self.is_listed:
            self.is_listed = True
            self._group.note(self)

    def fail(self, error: BaseException) -> None:
        """Nothing else comes."""
        self.over, self._error = True, error

    def take(self) -> list[Any]:
        """The items that have come; `tell_read` then lets the sender send more."""
        self.is_listed = False
        if self.over:
            return []
        items = []
        for kind, value in self.pending.take():
            if kind is _ITEM or kind is _REPLY:
                items.append(value)
            if kind is not _ITEM:
                self.over = True
                self._error = value if kind is _ERROR else None
        if self.over:
            self._group.forget(self)
        return items

    def tell_read(self) -> None:
        """The items that were taken have been read, unless the stream was paused meanwhile."""
        if not (self.over or self.is_paused):
            self.pending.tell_read()


class ReadGroup(StreamGroup):
    """Over a `Caller`, or a connection to a gateway."""

    def __init__(self, begins: Begins, loop: asyncio.AbstractEventLoop, on_items: OnItems | None = None) -> None:
        self._begins = begins
        self._loop = loop
        self._on_items = on_items
        self._context = copy_context()
        self._streams: dict[GroupedStream, None] = {}
        self._news: deque[GroupedStream] = deque()
        self._deadlines: list[tuple[int, int, GroupedStream]] = []  # a heap; the second number tells equal ones apart
        self._timer: asyncio.TimerHandle | None = None
        self._begun = 0
        self._waiter: asyncio.Future[None] | None = None
        self._is_closed = False

    def begin(self, target: str, /, *args: Any, timeout_s: float | None = None, **fields: Any) -> GroupedStream:
        if self._is_closed:
            raise SlabwireError(f"{target} cannot be begun: this group of streams is closed")
        deadline_ns = deadline_of(timeout_s)
        request = self._begins.checked(target, args, fields, stream=True)
        stream = self.join(target, request, deadline_ns=deadline_ns)
        if deadline_ns:
            self._begun += 1
            heapq.heappush(self._deadlines, (deadline_ns, self._begun, stream))
            self._set_timer()
        return stream

    def join(self, target: str, request: Any, **how: Any) -> GroupedStream:
        """Begins a stream of a request that was checked, with what `Begins.begin` takes. Its deadline is the sender's
        and the caller's affair.
        """
        stream = GroupedStream(self, target)
        stream.pending = self._begins.begin(request, notify=stream.note, **how)
        self._streams[stream] = None
        return stream

    def __len__(self) -> int:
        return len(self._streams)

    # -- what comes --------------------------------------------------------------------------------------------------

    def note(self, stream: GroupedStream) -> None:
        """Something has come of a stream; the first since the last pass calls for another pass."""
        self._news.append(stream)
        if len(self._news) > 1:
            return
        if self._on_items is not None:
            self._loop.call_soon(self._deliver, context=self._context)
        elif self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _deliver(self) -> None:
        news, self._news = self._news, deque()
        on_items = self._on_items
        for stream in news:
            if stream in self._streams and on_items is not None:
                items = stream.take()
                try:
                    on_items(stream, items)
                except Exception as error:
                    about = {"message": f"on_items raised for a stream of {stream.target}", "exception": error}
                    self._loop.call_exception_handler(about)
                stream.tell_read()

    def __aiter__(self) -> AsyncIterator[tuple[IncomingStream, list[Any]]]:
        return self

    async def __anext__(self) -> tuple[IncomingStream, list[Any]]:
        if self._on_items is not None:
            raise SlabwireError("this group of streams has a callback, which gets its items")
        while True:
            while self._news:
                stream = self._news.popleft()
                if stream in self._streams:
                    items = stream.take()
                    stream.tell_read()
                    return stream, items
            if self._is_closed:
                raise StopAsyncIteration
            self._waiter = self._loop.create_future()
            await self._waiter

    # -- how they end ------------------------------------------------------------------------------------------------

    def forget(self, stream: GroupedStream) -> None:
        """A stream is over."""
        self._streams.pop(stream, None)

    def cancel(self, stream: GroupedStream) -> None:
        """Nobody wants the rest of a stream."""
        if stream in self._streams:
            self.forget(stream)
            stream.over = True
            self._begins.cancel(stream.pending)

    def close(self) -> None:
        self._is_closed = True
        for stream in list(self._streams):
            self.cancel(stream)
        if self._timer is not None:
            self._timer.cancel()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _set_timer(self) -> None:
        """One timer for all: for the first deadline of a stream that is not over."""
        while self._deadlines and self._deadlines[0][2].over:
            heapq.heappop(self._deadlines)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._deadlines:
            left_s = max(0.0, (self._deadlines[0][0] - now_ns()) / 1e9)
            self._timer = self._loop.call_later(left_s, self._expire)

    def _expire(self) -> None:
        while self._deadlines and self._deadlines[0][0] <= now_ns():
            stream = heapq.heappop(self._deadlines)[2]
            if stream in self._streams and not stream.over:
                self._begins.cancel(stream.pending)
                stream.pending.arrived.append((_ERROR, timed_out(stream.target)))
                stream.note()
        self._timer = None
        self._set_timer()
