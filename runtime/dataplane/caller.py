"""Outgoing calls of one process: numbers them, finds a way in, and hands answers to the threads and tasks that wait."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from copy import copy
from functools import partial
from typing import Any

from ...shm.bell import BLOCKS, ROOM, now_ns
from ...shm.consumer import Consumer
from ...shm.lane import RECORD_NBYTES
from ...shm.producer import Producer
from ..control.channel import LaneOffer
from ..errors import (
    CorruptLane,
    MessageError,
    Overloaded,
    SlabwireError,
    error_from_wire,
    mark_not_begun,
)
from ..graph.compiled import Routing
from ..message.delegated import whereabouts_of
from ..message.encoding import decode
from ..message.fast_path import encode_and_publish
from ..message.header import Flag, Header, Kind, read_header, with_key
from ..message.item_batch import read_items
from ..message.payload import Payload
from .callable_ports import CallablePorts, Request
from .endpoint import Endpoint
from .entries import Entries
from .held_rings import HeldRings
from .moved_requests import MovedRequests
from .pending import Pending
from .sent_streams import SentStreams

_DATA, _BATCH, _MOVED = int(Kind.DATA), int(Kind.BATCH), int(Kind.MOVED)
_ITEM, _ONE_ITEM = Kind.ITEM, int(Kind.ITEM)
_KINDS = {int(each): each for each in Kind}  # to call an enumeration takes 0.3 us
# The upper half of a request's number tells the processes of one endpoint apart; behind so many it begins anew.
_INCARNATIONS = 1 << 31


class _Sent(Pending):
    """A request that lies in a lane, with what its cancel repeats."""

    __slots__ = ("entry", "port", "route", "trace")

    entry: Producer
    port: int
    route: int
    trace: tuple[int, int]


class Caller:
    """Built over an endpoint. One thread at a time. `calls` and streams may be in flight. `cause` gives the lane and
    the sequence of the input whose handler calls; without one this is a client.

    Request numbers of one process never meet those of its predecessors: the upper half grows with time.
    """

    def __init__(
        self, endpoint: Endpoint, routing: Routing, calls: int, cause: Callable[[], tuple[int, int]] | None = None
    ) -> None:
        self.calls = calls
        self._endpoint = endpoint
        self._routing = routing
        self._cause = cause
        self.entries = Entries(endpoint, routing, partial(self.can_spare, records=2))
        self._entries = self.entries.lanes
        self._moved = MovedRequests(endpoint, routing, self._entries, self.can_spare)
        self.rings = HeldRings()
        self.streams = SentStreams(endpoint)
        self.ports = CallablePorts(routing, self.streams.check, inside=cause is not None)
        self.checked = self.ports.checked
        self.replies: list[Consumer] = []
        self._pending: dict[int, _Sent] = {}
        self._rest: tuple[Consumer, Iterator[tuple[int, int, Any]]] | None = None  # of a batch that is being handed out
        self.gone: SlabwireError | None = None  # why no call begins any more
        self._aside: set[int] = set()  # of these, the calls beside the others
        self._by_entry: dict[Producer, int] = {}  # how many went by each lane
        # Higher for every later process: in steps of 17 ms, which is less than a process takes to start.
        self._last_request = ((now_ns() >> 24) % _INCARNATIONS) << 32
        # Where the graph runs in this process: gives an error the exception that it was made from.
        self.explain: Callable[[tuple[int, int], SlabwireError], None] | None = None

    def lane_opened(self, offer: LaneOffer, end: Producer | Consumer) -> None:
        """A lane to an entry, or from somebody who answers."""
        if offer.purpose == "items" and isinstance(end, Producer):
            self.streams.lanes[offer.target] = end
        elif isinstance(end, Producer):
            self.rings.use(end)
            self.entries.add(offer.target, end)
            self._moved.flush()
        else:
            self.replies.append(end)

    def begin(
        self,
        request: Request,
        *,
        deadline_ns: int = 0,
        trace: tuple[int, int] = (0, 0),
        notify: Callable[[], object] | None = None,
        key: str = "",
        aside: bool = False,
    ) -> Pending:
        """Sends a request, with the idempotency key that its handler is told, if it has one. Raises MessageError,
        Overloaded, or Disconnected. `aside`: a call for one answer that is not among the `calls`.
        """
        target, route, fields, stream = request
        source = None
        if self.gone is not None:
            raise mark_not_begun(copy(self.gone))
        if stream is not None:
            fields = dict(fields)
            source = fields.pop(stream)
        if not aside and len(self._pending) - len(self._aside) >= self.calls:
            more = "or give its actor more: calls=" if self._cause else "use a second client, or Graph(client_calls=)"
            raise mark_not_begun(Overloaded(f"{self.calls} calls are in flight already; wait for some, {more}"))
        lanes, port = self.entries.ways.get(route) or self.entries.opened(route)
        entry = lanes[0] if len(lanes) == 1 else self.entries.choose(route, lanes, fields)
        wanted = 2 + self._by_entry.get(entry, 0)  # `can_spare`, without the price of a call
        if entry.free_records(wanted) < wanted:
            raise self._overloaded(target, entry)
        # Before it is published: an exception right behind that must not give its number to the next request.
        number = self._last_request + 1
        self._last_request = number = number if aside else self._endpoint.open_calls.next_free(number)
        pending = _Sent(number, notify)
        pending.entry, pending.route, pending.port = entry, route, port
        pending.trace = trace if trace[0] or trace[1] else (random.getrandbits(64), random.getrandbits(64))
        try:
            if not aside:
                self._endpoint.open_calls.begin(number)
            self._publish(target, pending, fields, deadline_ns, key)
        except BaseException:
            if not aside:
                self._endpoint.open_calls.end(number)
            raise
        self._pending[number] = pending
        self._by_entry[entry] = self._by_entry.get(entry, 0) + 1
        if aside:
            self._aside.add(number)
        if source is not None:
            instance = next(name for name, lane in self._entries.items() if lane is entry)
            pending.stream = self.streams.begin(instance, self._head(pending, 0)[:9], source)
        return pending

    def _publish(self, target: str, pending: _Sent, fields: dict[str, Any], deadline_ns: int, key: str) -> None:
        """Writes the record of a request."""
        entry, flags = pending.entry, 0
        if key:
            fields, flags = with_key(fields, key), Flag.KEYED
        head = self._head(pending, deadline_ns)
        if not encode_and_publish(fields, self._endpoint.pool, entry, _DATA, flags, head, is_fields=True):
            payload = Payload(fields, self._endpoint.pool, is_fields=True)
            if not payload.can_go(entry):
                raise self._overloaded(target, entry)
            self._write(pending, Kind.DATA, payload, deadline_ns, flags)

    def _overloaded(self, target: str, entry: Producer) -> SlabwireError:
        text = f"{target!r} has not read the last {entry.waiting} requests of this caller; try again later"
        return mark_not_begun(Overloaded(text))

    def can_spare(self, entry: Producer, records: int = 1) -> bool:
        """Whether a lane has room for so many records beside the cancels of all calls in flight by it: one that is no
        call, or a request with its own cancel.

        The record at the front may wait for a place that nothing frees but the cancel of what has it.
        """
        wanted = records + self._by_entry.get(entry, 0)
        return entry.free_records(wanted) >= wanted

    def _head(self, pending: _Sent, deadline_ns: int) -> tuple[int, ...]:
        """The numbers of a request's header."""
        about = self._endpoint.identifier, pending.route, pending.request, deadline_ns, *pending.trace
        lane, sequence = self._cause() if self._cause is not None else (0, 0)
        return 0, pending.port, 0, *about, now_ns(), lane, 0, sequence

    def _write(self, pending: _Sent, kind: Kind, payload: Payload, deadline_ns: int, flags: int = 0) -> None:
        payload.publish(pending.entry, kind, flags, self._head(pending, deadline_ns))
        payload.close()

    def finish(self, pending: Pending) -> None:
        """The caller has got all that it wants: from now on nobody can cancel what the call has set going."""
        request = pending.request
        sent = self._pending.pop(request, None)
        if sent is None:
            return
        self._by_entry[sent.entry] -= 1
        sent.answerer = None  # its slot is the next one's, which must not be told what was read of this one
        if sent.stream is not None:
            sent.stream.end()
        if self._moved.places:
            self._moved.places.pop(request, None)
        if request in self._aside:  # it has no slot in which others see it; it is short in any case
            self._aside.discard(request)
        else:
            self._endpoint.open_calls.end(request)

    def cancel(self, pending: Pending) -> None:
        """The caller has lost interest: tells the graph, if the answer has not come. There is room: see `begin`."""
        sent = self._pending.get(pending.request)
        if sent is not pending or sent is None:  # its answer has come, or another connection has begun it
            return
        if not sent.entry.segment.is_mapped:  # this is a child of the process that called
            del self._pending[sent.request]
            return
        self._write(sent, Kind.CANCEL, Payload(None, self._endpoint.pool), 0)
        self._moved.cancelled(sent.request, sent.trace)
        self.finish(sent)

    def fail_all(self, error: SlabwireError) -> None:
        """Every call in flight ends with the error, and is cancelled: the client closes, or the graph is gone."""
        for pending in list(self._pending.values()):
            self._give_up(pending, error)

    def _give_up(self, pending: Pending, error: SlabwireError) -> None:
        self.cancel(pending)
        self._arrive(pending, Kind.ERROR, error)

    def pump(self) -> bool:
        """Takes in all answers that have come; True if there were any."""
        if self._rest is not None:
            self._hand_out()
        if self._moved.unsent:
            self._moved.flush()
        came = self.streams.admit() if self.streams.waiting else False
        for lane in self.replies:
            while lane.available():
                self.take(lane)
                came = True
        return came

    def take(self, lane: Consumer) -> None:
        """Takes in the next record of a lane that has one."""
        # `lane.offset`, without the price of a call.
        header = read_header(lane.segment.bytes, lane.ring + lane.cursor % lane.capacity * RECORD_NBYTES)
        if header.kind == _BATCH:
            self._take_batch(lane, header)
            return
        pending = self._pending.get(header.request)
        try:
            if header.kind == _MOVED:
                place = whereabouts_of(self._endpoint.open(lane, header, lane.cursor))
                self._moved.moved(header.request, place, is_pending=pending is not None)
            elif pending is None:
                self._endpoint.let_go(lane, header, lane.cursor)  # nobody waits any more
            else:
                value = decode(header, self._endpoint.lease(lane, header, lane.cursor))
                kind = _KINDS[header.kind]
                pending.answerer = lane
                self._arrive(pending, kind, self._error(pending, value) if kind == Kind.ERROR else value)
        except SlabwireError as error:
            lane.refuse()
            if pending is not None and header.kind == Kind.ITEM:
                self._give_up(pending, error)  # more would come
            elif pending is not None:
                self._arrive(pending, Kind.ERROR, error)
        lane.commit()

    def _take_batch(self, lane: Consumer, header: Header) -> None:
        """Items of many streams, which are copied out of their block at once, so that no stream holds it. Raises
        CorruptLane for what is no batch.
        """
        lease = self._endpoint.lease(lane, header, lane.cursor)
        if lease is None:
            raise CorruptLane(f"a batch of items in lane {lane.lane} refers to no block")
        try:
            items = read_items(lease.bytes(), header.at, header.nbytes)
        except MessageError as error:
            raise CorruptLane(f"lane {lane.lane}: {error}") from None
        lane.commit()
        del lease  # after the commit: a successor that found the record would find its block written over
        self._rest = lane, zip(*items, strict=True)
        self._hand_out()

    def _hand_out(self) -> None:
        """Brings each item of a batch to its stream. After an exception the next call goes on with the rest."""
        if self._rest is None:
            return
        known, (lane, items) = self._pending, self._rest
        for request, kind, value in items:
            pending = known.get(request)
            if pending is None:
                continue
            pending.answerer = lane
            if kind == _ONE_ITEM and pending.reader is not None:
                pending.reader.add(value)  # `_arrive`, without the price of a call
            else:
                self._arrive(pending, _KINDS[kind], value)
        self._rest = None

    def _error(self, pending: Pending, value: Any) -> SlabwireError:
        error = error_from_wire(*value)
        if self.explain is not None:
            self.explain((self._endpoint.identifier, pending.request), error)
        return error

    def _arrive(self, pending: Pending, kind: Kind, value: Any) -> None:
        if pending.stream is not None and kind != Kind.ITEM and pending.stream.error is not None:
            kind, value = Kind.ERROR, pending.stream.error  # the caller's own
        if kind is _ITEM and pending.reader is not None:
            pending.reader.add(value)
            return
        pending.arrived.append((kind, value))
        if kind != Kind.ITEM:
            self.finish(pending)
        if pending.notify is not None:
            pending.notify()

    def close(self) -> None:
        """Cancels what is in flight and lets go of all lanes."""
        for pending in list(self._pending.values()):
            self.cancel(pending)
        self.entries.clear()
        self._by_entry.clear()
        self.replies.clear()
        self.streams.lanes.clear()
        self._pending.clear()
        self._moved.clear()

    @property
    def in_flight(self) -> int:
        return len(self._pending)

    def look(self) -> Callable[[], object]:
        """What tells, at the least price, whether an answer lies unread in the lanes that there are now."""
        return self.replies[0].available if len(self.replies) == 1 and not self.streams.waiting else self.has_news

    def has_news(self) -> bool:
        """Whether an answer lies unread, or a stream that is sent has room."""
        for lane in self.replies:
            if lane.available():
                return True
        return bool(self.streams.waiting) and self.streams.can_go()

    def reasons(self) -> int:
        """What a caller that sleeps is to be rung for."""
        return self._endpoint.reasons() | (ROOM | BLOCKS if self.streams.waiting else 0)

    def collect(self) -> bool:
        """To be called after saying that one sleeps: lets go of what has come back, and lets streams that are sent go
        on. True if there was any of these.
        """
        self._endpoint.collect_forwards()
        return bool(self.streams.waiting) and self.streams.admit()
