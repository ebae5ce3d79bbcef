"""Streams that calls send by shared memory: published as records of the lanes for items, while there is room."""

from __future__ import annotations

import asyncio
from typing import Any

from ...shm.bell import ROOM, WAITING_FOR, now_ns
from ...shm.producer import Producer
from ..errors import OutOfMemory
from ..message.capacities import STREAM_WINDOW
from ..message.fast_path import encode_and_publish
from ..message.header import Kind
from ..message.payload import Payload, failure
from ..message.sent_stream import PacedSource, SentStream, check_plain
from .endpoint import Endpoint

_ITEM = int(Kind.ITEM)
# What stands in a request's header behind its deadline, and is nothing to an item: its cause.
_NO_CAUSE = (0, 0, 0)


class LaneStream(SentStream):
    """The stream of one call, by a lane. `head` has the numbers of its records from `source` to the trace."""

    __slots__ = ("_head", "_lacks_nbytes", "_lane", "_limit", "_paced", "_sent", "_streams", "lacks_blocks")

    def __init__(self, streams: SentStreams, lane: Producer, head: tuple[int, ...], source: Any) -> None:
        super().__init__(source)
        self.lacks_blocks = False
        self._streams = streams
        self._lane = lane
        self._head = head
        self._sent = self._limit = self._lacks_nbytes = 0
        self._paced = source if isinstance(source, PacedSource) else None
        if self._paced is not None:
            self._paced.begin(self._read)

    def _read(self) -> int:
        return self._lane.items_read(self._head[5])

    def can_go(self) -> bool:
        if self.is_over or self.has_ended or self.lacks_blocks:
            return False
        if self._sent >= self._limit and (self._held is None or self._held[0] is Kind.ITEM):
            # The beginning of the handler counts as the first that is read: before it nothing is pulled.
            read = self._read()
            self._limit = read - 1 + STREAM_WINDOW if read else 0
            if self._sent >= self._limit:
                return False
        if self._paced is not None and self._held is None and not self._paced.can_give():
            return False
        return self._lane.waiting < self._lane.capacity

    def _publish(self, kind: Kind, value: Any) -> bool:
        try:
            went = self._write(kind, value)
        except OutOfMemory:
            if self._sent + 1 > self._read():
                self._lacks_nbytes, self.lacks_blocks = self._streams.pool.used_nbytes, True
                return False
            self._streams.pool.take_back()  # all was read, perhaps after the try: what is back now is all that will be
            went = self._write(kind, value)
        self._sent += went
        return went

    def _write(self, kind: Kind, value: Any) -> bool:
        """False where the lane has no room for it."""
        pool, lane = self._streams.pool, self._lane
        head = *self._head, now_ns(), *_NO_CAUSE
        if kind is Kind.ITEM and encode_and_publish(value, pool, lane, _ITEM, 0, head):
            return True
        payload = failure(value, "a caller", pool) if kind is Kind.ERROR else Payload(value, pool)
        if not payload.can_go(lane):
            self.lacks_blocks = payload.holder is not None and not lane.can_lend()
            return False
        payload.publish(lane, kind, 0, head)
        payload.close()
        return True

    def look_for_blocks(self) -> None:
        """Whether blocks have come back since it lacked one. By whoever has the lanes."""
        if self._lane.can_lend():
            self._streams.pool.take_back()
            if not self._lacks_nbytes or self._streams.pool.used_nbytes < self._lacks_nbytes:
                self.lacks_blocks, self._lacks_nbytes = False, 0

    async def _room(self) -> None:
        try:
            await super()._room()
        finally:
            self._streams.waiting.pop(self, None)

    def wait(self) -> None:
        if not (self.has_ended or self.is_over):
            self._streams.wait(self)
            if self.is_over:  # another thread has received the answer meanwhile
                self._streams.waiting.pop(self, None)

    def end(self) -> None:
        super().end()
        self._streams.waiting.pop(self, None)


class SentStreams:
    """Those of one caller: `lanes` has the lanes for items by actor instance, `waiting` those that wait for room.

    On `loop`, where there is one, a task sends each; else whoever waits for the answer. One thread at a time, beside
    `can_go` and `wait`.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.lanes: dict[str, Producer] = {}
        self.waiting: dict[LaneStream, None] = {}
        self.loop: asyncio.AbstractEventLoop | None = None
        self._endpoint = endpoint
        self.pool = endpoint.pool

    def check(self, target: str, field: str, source: Any) -> None:
        """Raises MessageError for a source that this caller cannot pull."""
        if self.loop is None:
            check_plain(target, field, source)

    def begin(self, instance: str, head: tuple[int, ...], source: Any) -> LaneStream:
        """The stream of a call that was sent to an instance, with the numbers of its header up to the trace."""
        stream = LaneStream(self, self.lanes[instance], head, source)
        if self.loop is not None:
            stream.begin_task(self.loop)
        return stream

    def wait(self, stream: LaneStream) -> None:
        """A stream goes on when there is room. If this process sleeps, it is to be called for that too."""
        if stream not in self.waiting:
            self.waiting[stream] = None
            own = self._endpoint.ringers.get(self._endpoint.identifier)
            if own is not None and own.words[WAITING_FOR] and not own.words[WAITING_FOR] & ROOM:
                own.ring_always()

    def can_go(self) -> bool:
        """Whether one of those that wait has room now, as far as may be seen in any thread."""
        return any(each.can_go() for each in tuple(self.waiting))

    def admit(self) -> bool:
        """Lets those go on for which there is room; True if there was any."""
        admitted = False
        for each in tuple(self.waiting):
            if each.lacks_blocks:
                each.look_for_blocks()
            if each.can_go():
                self.waiting.pop(each, None)
                each.go_on()
                admitted = True
        return admitted
