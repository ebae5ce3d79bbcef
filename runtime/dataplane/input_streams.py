"""Streams that callers send, at the end of the actor that reads them: items by request, as its handlers take them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Collection
from typing import Any, NoReturn

from ...shm.consumer import Consumer
from ...shm.inflight import Inflight
from ..actor.handler import Handler
from ..errors import MessageError, SlabwireError, error_from_wire
from ..message.capacities import STREAM_WINDOW, Key
from ..message.encoding import decode
from ..message.header import Header, Kind
from .endpoint import Endpoint
from .pending import TELL_EVERY

# Of arrays that were read it tells the sooner: the gateway keeps a client from sending more than a few MiB ahead.
_TELL_FROM_NBYTES = 1 << 20
_ITEM, _END, _ERROR = int(Kind.ITEM), int(Kind.END), int(Kind.ERROR)


class InputStream(AsyncGenerator[Any, None]):
    """What a handler gets for a parameter that is a stream. Items that it has not read when it ends are let go.

    `lane` is that by which the items come; None where their caller is gone. One loop, one thread.
    """

    __slots__ = (
        "_arrived", "_handler", "_is_over", "_lane", "_read", "_told", "_untold_nbytes", "_waiter", "has_ended", "key",
        "row",
    )  # fmt: skip

    def __init__(self, key: Key, row: int, handler: Handler, lane: Consumer | None) -> None:
        self.key = key
        self.row = row
        self.has_ended = False  # its caller sends no more
        self._handler = handler
        self._lane = lane
        self._arrived: deque[tuple[int, Any, int]] = deque()
        self._is_over = False
        self._read = self._told = self._untold_nbytes = 0
        self._waiter: asyncio.Future[None] | None = None

    def begin(self) -> None:
        """The handler begins: its caller may send. The first that the caller is told of as read is the beginning."""
        self._tell()

    def put(self, kind: int, value: Any, nbytes: int = 0) -> None:
        """Something has come, in a block of so many bytes."""
        if self._is_over or self.has_ended:
            return
        if kind == _ITEM and len(self._arrived) >= STREAM_WINDOW:
            kind, value = _ERROR, MessageError(f"more than {STREAM_WINDOW} items were sent ahead of their reader")
        self.has_ended = kind != _ITEM
        self._arrived.append((kind, value, nbytes))
        self._wake()

    def close(self) -> None:
        """Nothing more is read."""
        self._is_over = True
        self._arrived.clear()
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _tell(self) -> None:
        self._told, self._untold_nbytes = self._read, 0
        if self._lane is not None:
            self._lane.note_read(self.key[1], 1 + self._read)

    async def __anext__(self) -> Any:
        if self._waiter is not None:
            raise RuntimeError("another task reads this stream already")
        # Not sooner: of a caller whose items have all been read, all blocks but that of the last should be back.
        if self._read - self._told >= TELL_EVERY or self._untold_nbytes >= _TELL_FROM_NBYTES:
            self._tell()
        while not self._arrived:
            if self._is_over:
                raise StopAsyncIteration
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if self._arrived[0][0] != _ITEM:
            self._end()
        _, value, nbytes = self._arrived.popleft()
        self._read += 1
        self._untold_nbytes += nbytes
        try:
            return self._handler.item(value)
        except MessageError:
            self.close()
            raise

    def _end(self) -> NoReturn:
        kind, value, _ = self._arrived.popleft()
        self.close()
        try:
            raise value if kind == _ERROR else StopAsyncIteration
        finally:
            del value  # an error that its own frame held would keep all frames above alive

    async def asend(self, value: None) -> Any:  # noqa: ARG002 - nobody is there to get it
        return await self.__anext__()

    async def athrow(self, typ: Any, val: Any = None, tb: Any = None) -> Any:  # noqa: ARG002 - as its base has it
        self.close()
        raise typ if val is None else val

    async def aclose(self) -> None:
        self.close()


class InputStreams:
    """Those of one actor instance. `lanes` has the lanes by which items come, by caller; `look_for_lanes` is called
    where a caller's lane is not known: its offer may lie unread. `is_expected` says of a request whether its handler is
    still to begin again, in the place of one whose process has died.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        table: Inflight,
        look_for_lanes: Callable[[], Any],
        is_expected: Callable[[Key], bool],
    ) -> None:
        self.lanes: dict[int, Consumer] = {}
        self._open: dict[Key, InputStream] = {}
        self._endpoint = endpoint
        self._table = table
        self._look_for_lanes = look_for_lanes
        self._is_expected = is_expected

    def open(self, key: Key, row: int, handler: Handler) -> InputStream:
        """The stream of an input that begins and has this row of the in-flight table."""
        if key[0] not in self.lanes:
            self._look_for_lanes()
        stream = InputStream(key, row, handler, self.lanes.get(key[0]))
        if key in self._open:
            stream.put(_ERROR, MessageError(f"request {key[1]} of caller {key[0]} sends a stream already"))
        else:
            self._open[key] = stream
            stream.begin()
        return stream

    def close(self, stream: InputStream) -> None:
        """Its handler is done: what is left of it, and what comes still, is let go."""
        stream.close()
        if self._open.get(stream.key) is stream:
            del self._open[stream.key]

    def forget_lanes(self, lanes: Collection[int]) -> None:
        """Nothing that comes by these lanes is needed any more."""
        for caller in [caller for caller, lane in self.lanes.items() if lane.lane in lanes]:
            del self.lanes[caller]

    def must_wait(self, header: Header) -> bool:
        """Whether a record is for a handler that is still to begin again."""
        return header.key not in self._open and self._is_expected(header.key)

    def take(self, lane: Consumer, header: Header) -> bool:
        """Takes the next record of a lane to its stream; False, with nothing done, where that is still to begin again.

        From the first item on that is taken, a successor cannot begin the handler again: the table says so before the
        item is given back.
        """
        stream = self._open.get(header.key)
        if stream is None:
            if self._is_expected(header.key):
                return False
            self._endpoint.let_go(lane, header, lane.cursor)
            lane.commit()
            return True
        self._table.take(stream.row)
        kind: int = header.kind
        value: Any = None
        nbytes = 0
        try:
            lease = self._endpoint.lease(lane, header, lane.cursor)
            value = decode(header, lease)
            nbytes = lease.slab.block_nbytes if lease is not None else 0
            if kind == _ERROR:
                value = _error_of(value)
        except SlabwireError as error:
            lane.refuse()
            kind, value = _ERROR, error
        stream.put(kind, value, nbytes)
        lane.commit()
        return True


def _error_of(value: Any) -> SlabwireError:
    """The error that a caller's iterator has raised, from its code and text. Raises MessageError for anything else."""
    if not (isinstance(value, list) and len(value) == 2 and all(isinstance(each, str) for each in value)):
        raise MessageError("a stream ends with an error that has no code and no text")
    return error_from_wire(*value)
