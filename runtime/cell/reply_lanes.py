"""The lanes from one actor instance back to callers, and how far a stream may run ahead of its reader."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...shm.bell import now_ns
from ...shm.producer import Producer
from ..errors import CorruptLane
from ..message.capacities import STREAM_WINDOW, Key
from ..message.header import Header, Kind
from ..telemetry.stats import CellStats
from .work import Dispatch, Work


class StreamCredit:
    """How far one stream may run ahead: `sent` items so far, `limit` is how many its reader has room for in all."""

    __slots__ = ("limit", "sent")

    def __init__(self, read: int) -> None:
        self.sent = read
        self.limit = read + STREAM_WINDOW

    def room(self, producer: Producer, request: int) -> int:
        """For how many items there is room. Reads what the reader has read only when none seems to be left."""
        if self.sent >= self.limit:
            self.limit = producer.items_read(request) + STREAM_WINDOW
        return self.limit - self.sent


class ReplyLanes:
    """`lanes` has them by caller. `look_for_lanes` is called when a caller's lane is not known: the offer of the lane
    may lie unread. One thread.
    """

    def __init__(self, stats: CellStats, look_for_lanes: Callable[[], Any]) -> None:
        self.lanes: dict[int, Producer] = {}
        self._stats = stats
        self._look_for_lanes = look_for_lanes
        self._credits: dict[Key, StreamCredit] = {}  # of each stream that is open

    def knows(self, caller: int) -> bool:
        """Whether there is a way back to a caller. Its lanes are opened before it may call, but may lie unread."""
        if caller not in self.lanes:
            self._look_for_lanes()
        return caller in self.lanes

    def send(self, work: Work, dispatch: Dispatch) -> bool:
        """Answers a caller; False if the answer must wait. An answer that nobody waits for is dropped."""
        reply_to, deadline = work.header.reply_to, work.header.deadline_ns
        if not self.knows(reply_to):
            return True  # the caller is gone
        producer = self.lanes[reply_to]
        try:
            has_room = self._has_room(producer, work.header, dispatch)
        except CorruptLane:
            return False  # this may be inside a handler: the worker's own look at the lane ends the connection
        if not has_room:
            # A caller that has given up, and does not even read that it has, must hold up nobody.
            return bool(deadline and now_ns() >= deadline)
        work.publish(dispatch, producer, 0, self._stats)
        if dispatch.kind == Kind.ITEM:
            self.credit(producer, work.header).sent += 1
        else:
            self._credits.pop(work.header.key, None)
        return True

    def credit(self, producer: Producer, header: Header) -> StreamCredit:
        """The credit of a request's stream of answers."""
        known = self._credits.get(header.key)
        if known is None:
            known = self._credits[header.key] = StreamCredit(producer.items_read(header.request))
        return known

    def has_plenty(self, caller: int) -> bool:
        """Whether there is room beside that for a single answer of each call of a caller."""
        try:
            return caller in self.lanes and self.takes_items(self.lanes[caller])
        except CorruptLane:
            return False  # as in `send`

    def could_go(self, header: Header, dispatch: Dispatch) -> bool:
        """Whether `send` would get rid of an answer now."""
        producer = self.lanes.get(header.reply_to)
        return producer is None or self._has_room(producer, header, dispatch)

    def _has_room(self, producer: Producer, header: Header, dispatch: Dispatch) -> bool:
        """Whether the caller takes one more record."""
        if dispatch.kind == Kind.ITEM and not self.takes_item(producer, header):
            return False
        return dispatch.payload.can_go(producer)

    def takes_item(self, producer: Producer, header: Header) -> bool:
        """Whether a caller takes one more item of the stream of a request. A stream runs ahead of its reader by a
        window. So a caller that does not read a stream stops that stream, and nobody else.
        """
        return self.takes_items(producer) and self.credit(producer, header).room(producer, header.request) > 0

    @staticmethod
    def takes_items(producer: Producer) -> bool:
        """Whether there is a record for items. All streams together may fill half of the lane: the rest is kept for
        single answers, of which a caller awaits no more than that.
        """
        half = producer.capacity // 2
        return producer.free_records(half + 1) > half

    def forget_caller(self, endpoint: int) -> None:
        """A caller is gone."""
        self.lanes.pop(endpoint, None)
        self.forget_streams(lambda key: key[0] == endpoint)

    def forget_stream(self, key: Key) -> None:
        """Nobody reads this stream any more."""
        self._credits.pop(key, None)

    def forget_streams(self, is_over: Callable[[Key], bool]) -> None:
        """Nobody reads these streams any more."""
        for key in list(filter(is_over, self._credits)):
            del self._credits[key]

    def corrupt(self) -> set[int]:
        """The callers whose lanes hold impossible words."""
        return {caller for caller, producer in self.lanes.items() if not _is_sound(producer)}


def _is_sound(producer: Producer) -> bool:
    """Whether the word that the consumer of a lane writes can be right."""
    try:
        producer.free_records(producer.capacity + 1)
    except CorruptLane:
        return False
    return True
