"""A group of streams over one connection: takes in what has come of all of them, and grants credit by the portion."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextvars import copy_context
from typing import Any

from ..actor.stream_group import IncomingStream, OnItems, StreamGroup
from ..errors import SlabwireError
from ..message.header import Kind
from .async_calls import AsyncCalls
from .pending import TELL_EVERY, Pending, deadline_of, timed_out

_ERROR, _REPLY = Kind.ERROR, Kind.REPLY


class GroupedStream(IncomingStream):
    """One of them. `pending` is its call."""

    __slots__ = ("_group", "_items", "deadline_ns", "is_ending", "is_paused", "pending", "target", "untold")

    def __init__(self, group: ReadGroup, target: str) -> None:
        self.tag = None
        self.is_over = False
        self.error = None
        self.target = target
        self.deadline_ns = 0  # of those that end by themselves then
        self.pending: Pending
        self.is_paused = False
        self.untold = 0  # items that were taken, which the sender does not know
        self._group = group
        self._items: list[Any] | None = None  # that were not taken
        self.is_ending = False  # behind these

    def cancel(self) -> None:
        self._group.cancel(self)

    def pause(self) -> None:
        self.is_paused = True

    def resume(self) -> None:
        self.is_paused = False
        self.tell_read()

    def be_late(self) -> None:
        self._group.expire(self)

    def add(self, item: Any) -> None:
        if self._items is not None:
            self._items.append(item)
            return
        self._items = [item]
        news = self._group.news  # `_group.note`, without the price of a call
        news.append(self)
        if len(news) == 1:
            self._group.wake()

    def note_end(self) -> None:
        """Its end, an error or the one answer has arrived."""
        self.is_ending = True
        self._group.note(self)

    def take(self) -> list[Any]:
        """The items that have come; `tell_read` then lets the sender send more. The stream was not over."""
        items, self._items = self._items or [], None
        self.untold += len(items)
        if self.is_ending:
            kind, value = self.pending.arrived.pop(0)
            self.is_over = True
            self.error = value if kind is _ERROR else None
            if kind is _REPLY:
                items.append(value)
            self._group.forget(self)
        return items

    def tell_read(self) -> None:
        """The items that were taken have been read, unless the stream was paused meanwhile: the sender is told, where
        that is worth telling.
        """
        if self.untold >= TELL_EVERY and not (self.is_over or self.is_paused):
            self.pending.read += self.untold
            self.untold = 0
            self.pending.tell_read()


class ReadGroup(StreamGroup):
    """Its streams take places among the calls of one connection, and share its timer. `news` are those that something
    has come of.
    """

    def __init__(
        self,
        calls: AsyncCalls,
        loop: asyncio.AbstractEventLoop,
        on_items: OnItems | None = None,
        deadline_of: Callable[[float | None], int] = deadline_of,
        trace: Callable[[], tuple[int, int]] = lambda: (0, 0),
    ) -> None:
        self._calls = calls
        self._deadline_of = deadline_of
        self._trace = trace
        self._loop = loop
        self._on_items = on_items
        self._context = copy_context()
        self._streams: set[GroupedStream] = set()
        self.news: deque[GroupedStream] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._is_closed = False

    def begin(self, target: str, /, *args: Any, timeout_s: float | None = None, **fields: Any) -> GroupedStream:
        if self._is_closed:
            raise SlabwireError(f"{target} cannot be begun: this group of streams is closed")
        deadline_ns = self._deadline_of(timeout_s)
        request = self._calls.begins.checked(target, args, fields, stream=True)
        trace = {} if (found := self._trace()) == (0, 0) else {"trace": found}
        stream = self.join(target, request, deadline_ns=deadline_ns, **trace)
        if deadline_ns:
            stream.deadline_ns = deadline_ns
            self._calls.deadlines.add(stream)
        return stream

    def join(self, target: str, request: Any, **how: Any) -> GroupedStream:
        """Begins a stream of a request that was checked, with what `Begins.begin` takes. Its deadline is the sender's
        and the caller's affair.
        """
        stream = GroupedStream(self, target)
        stream.pending = self._calls.begin_stream(request, notify=stream.note_end, **how)
        stream.pending.reader = stream
        self._streams.add(stream)
        return stream

    def __len__(self) -> int:
        return len(self._streams)

    # -- what comes --------------------------------------------------------------------------------------------------

    def note(self, stream: GroupedStream) -> None:
        """Something has come of a stream; the first since the last pass calls for another pass."""
        self.news.append(stream)
        if len(self.news) == 1:
            self.wake()

    def wake(self) -> None:
        """Calls for a pass."""
        if self._on_items is not None:
            self._loop.call_soon(self._deliver, self._on_items, context=self._context)
        elif self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _deliver(self, on_items: OnItems) -> None:
        news, self.news = self.news, deque()
        try:
            while news:
                stream = news.popleft()
                if stream.is_over:
                    continue
                items = stream.take()
                if not (items or stream.is_over):  # taken with those before
                    continue
                try:
                    on_items(stream, items)
                except (KeyboardInterrupt, SystemExit):
                    raise
                except BaseException as error:  # of a future that was cancelled, for example
                    about = {"message": f"on_items raised for a stream of {stream.target}", "exception": error}
                    self._loop.call_exception_handler(about)
                if stream.untold >= TELL_EVERY:
                    stream.tell_read()
        finally:
            if news:  # what ends the process may be caught somewhere
                self.news = news + self.news
                self._loop.call_soon(self._deliver, on_items, context=self._context)

    def __aiter__(self) -> AsyncIterator[tuple[IncomingStream, list[Any]]]:
        return self

    async def __anext__(self) -> tuple[IncomingStream, list[Any]]:
        if self._on_items is not None:
            raise SlabwireError("this group of streams has a callback, which gets its items")
        while True:
            while self.news:
                stream = self.news.popleft()
                if not stream.is_over:
                    items = stream.take()
                    stream.tell_read()
                    if items or stream.is_over:
                        return stream, items
            if self._is_closed:
                raise StopAsyncIteration
            if self._waiter is not None:
                raise SlabwireError("another task iterates this group of streams; one at a time may")
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    # -- how they end ------------------------------------------------------------------------------------------------

    def forget(self, stream: GroupedStream) -> None:
        """A stream is over: its place is free."""
        self._streams.remove(stream)
        if stream.deadline_ns:
            self._calls.deadlines.forget()
        self._calls.end_stream(stream.pending)

    def cancel(self, stream: GroupedStream) -> None:
        """Nobody wants the rest of a stream."""
        if stream in self._streams:
            stream.is_over = True
            self.forget(stream)

    def close(self) -> None:
        self._is_closed = True
        for stream in list(self._streams):
            self.cancel(stream)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def expire(self, stream: GroupedStream) -> None:
        """Its time is over."""
        if not (stream.is_over or stream.is_ending):
            self._calls.begins.cancel(stream.pending)
            stream.pending.arrived.append((_ERROR, timed_out(stream.target)))
            stream.note_end()
