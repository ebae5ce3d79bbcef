"""One reply stream, as its actor holds it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from ...shm.producer import Producer
from ..actor.reply_stream import ReplyStream
from ..message.item_batch import head_of
from .input_states import RUNNING
from .reply_lanes import StreamCredit
from .work import Work


class Streams(Protocol):
    """What does as the stream is told: `ReplyStreams`."""

    def has(self, stream: OpenStream, /) -> bool: ...

    def room_of(self, stream: OpenStream, /) -> int: ...

    async def wait_for_room(self, stream: OpenStream, /) -> None: ...

    def send(self, stream: OpenStream, item: Any, /) -> None: ...

    def end(self, stream: OpenStream, /) -> None: ...

    def fail(self, stream: OpenStream, error: BaseException, /) -> None: ...


class OpenStream(ReplyStream[Any]):
    """The stream of one input, which `caller` has sent. `producer` and `credit` are there where items go to the caller
    alone.
    """

    __slots__ = ("_callbacks", "_streams", "caller", "credit", "head", "producer", "work")

    def __init__(self, work: Work, streams: Streams) -> None:
        self.tag = None
        self.work = work
        self.caller = work.header.reply_to
        self.head = head_of(work.header.request, work.sequence, work.lane)
        self.producer: Producer | None = None
        self.credit: StreamCredit | None = None
        self._streams = streams
        self._callbacks: list[Callable[[ReplyStream[Any]], object]] = []

    @property
    def is_open(self) -> bool:
        return self.work.state is RUNNING

    @property
    def room(self) -> int:
        credit = self.credit
        if credit is None or credit.sent >= credit.limit or self.work.outbox or self.work.state is not RUNNING:
            return self._streams.room_of(self)
        return credit.limit - credit.sent

    async def wait_for_room(self) -> None:
        await self._streams.wait_for_room(self)

    def send(self, item: Any) -> None:
        self._streams.send(self, item)

    def end(self) -> None:
        self._streams.end(self)

    def fail(self, error: BaseException) -> None:
        self._streams.fail(self, error)

    def add_done_callback(self, callback: Callable[[ReplyStream[Any]], object]) -> None:
        if self._streams.has(self):
            self._callbacks.append(callback)
        else:
            callback(self)

    def take_callbacks(self) -> list[Callable[[ReplyStream[Any]], object]]:
        """Those to be called now that the stream is over."""
        callbacks, self._callbacks = self._callbacks, []
        return callbacks
