"""The ways out of one actor instance: lanes along its edges and back to callers, and what if they are full."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from ...shm.bell import now_ns
from ...shm.inflight import Inflight
from ...shm.lane import Producer
from ..dataplane.endpoint import Endpoint
from ..errors import CorruptLane, DeadlineExceeded, EdgeFull, SlabwireError
from ..graph.compiled import Routing
from ..message.capacities import MOST_REMEMBERED
from ..message.error_payload import failure, wire_form
from ..message.fast_path import post
from ..message.header import Flag, Header, Kind
from ..message.payload import Parcel, parcel_from
from ..spec import EdgeSpec
from ..telemetry.stats import CellStats
from .cancels import Cancels
from .replica_lanes import Spread
from .sends import Sends
from .ways_out import WaysOut
from .work import REPLY_KEY, Dispatch, Work

# Items of one stream that may be on the way to its reader, so that neither waits for the other at every item.
STREAM_WINDOW = 64
# Members of an enumeration are looked up by attribute, at every message.
_DATA, _REPLY, _ITEM = int(Kind.DATA), int(Kind.REPLY), Flag.ITEM


class Outlets:
    """Sends for one actor instance. An output that finds no room waits in the outbox of the input that caused it.

    `look_for_lanes` is called when a caller's lane is not known: its offer may lie unread.
    """

    def __init__(
        self,
        actor: str,
        routing: Routing,
        endpoint: Endpoint,
        table: Inflight,
        stats: CellStats,
        look_for_lanes: Callable[[], Any],
    ) -> None:
        self._actor = actor
        self.routing = routing
        self._endpoint = endpoint
        self._table = table
        self._stats = stats
        self._look_for_lanes = look_for_lanes
        self._spread = Spread(routing)
        self.edges = self._spread.lanes
        self.replies: dict[int, Producer] = {}
        self.ways_out = WaysOut(actor, routing)
        self._leaving, self._reply_ports = self.ways_out.leaving, self.ways_out.reply_ports
        self.routes = len(self._reply_ports)
        self._items: dict[tuple[int, int], int] = {}  # sent of each stream that is open
        # Messages of drop_oldest edges: they hold up nobody, so their inputs are finished before they have left.
        self.overflow: dict[int, deque[tuple[Work, Dispatch]]] = {}
        # Cancels on their way along full edges. What a reader has left may hold the place that others wait for there.
        self._cancels: deque[tuple[Producer, Work, int]] = deque(maxlen=MOST_REMEMBERED)
        self.own_account = Work(Header(Kind.DATA), 0, 0, 1)  # what it emits outside of any input
        self.sends = Sends(self, self.own_account, endpoint.pool, stats)

    def send(self, work: Work, port: str, value: Any, *, item: bool = False) -> None:
        """One output by a port: to the caller if this port answers the request, and along all its edges.

        Raises MessageError or OutOfMemory for a value that cannot be sent.
        """
        if work is self.own_account:
            self.sends.check(work, [edge for _, edge, _ in self._leaving[port][1]])
        item = item or work.header.flags & _ITEM != 0
        # Nearly all: the first attempt, nothing waits before it, and it leaves by one lane that has room.
        if work.outbox or work.attempt > 1 or not self._went_straight(work, port, value, item=item):
            parcel = parcel_from(self._actor, port, value, self._endpoint.pool)
            self._dispatch(work, port, parcel, Kind.DATA, value, item=item)
            work.ordinal += 1
            self.flush(work)

    def full_lane(self, port: str) -> Producer | None:
        """A lane that lets no output of this port leave now, of those that wait for room."""
        return self._spread.full_lane(self._leaving[port][1])

    def _went_straight(self, work: Work, port: str, value: Any, *, item: bool) -> bool:
        """Sends an output that leaves by one way, if that is open; what is not is for `_dispatch`."""
        header = work.header
        number, edges = self._leaving[port]
        if header.reply_to and self._reply_ports[header.route] == port:
            producer = self.replies.get(header.reply_to)
            if edges or item or producer is None:
                return False
            kind, target = _REPLY, 0
        else:
            if len(edges) != 1:
                return False
            edge, _, target = edges[0]
            lanes = self.edges[edge]
            if len(lanes) != 1 or self.overflow.get(edge):
                return False
            kind, producer = _DATA, lanes[0]
            if header.deadline_ns and not self.ways_out.deadline_along(edge, header):
                header = header._replace(deadline_ns=0)
        head = number, target, work.attempt, *header[5:11], now_ns(), work.lane, work.ordinal, work.sequence
        try:
            if not post(value, self._endpoint.pool, producer, kind, _ITEM * item, head):
                return False
        except CorruptLane:
            return False  # this may be inside a handler: it is the worker's own look at the lane that ends it
        self._stats.count_sent()
        work.ordinal += 1
        if work.row:
            self._table.sent(work.row, work.ordinal)
        return True

    def answer_none(self, work: Work, port: str) -> None:
        """Ends the request with None, which a handler on the way to the reply returned, not one on a side branch."""
        if not work.header.reply_to or not self.ways_out.leads_to_reply(work.header.route, port):
            return
        kind = Kind.ITEM if work.header.flags & Flag.ITEM else Kind.REPLY
        if kind == Kind.REPLY:
            self._answer(work, kind, Parcel(None, self._endpoint.pool))

    def end_stream(self, work: Work, ports: list[str]) -> None:
        """No more items: tells the caller, or whoever got the items."""
        parcel = Parcel(None, self._endpoint.pool)
        for port in ports:
            self._dispatch(work, port, parcel, Kind.END, None, item=True)
        work.ordinal += 1
        self.flush(work)

    def fail(self, work: Work, error: SlabwireError) -> None:
        """Ends the request with an error, if anybody waits for it."""
        self._answer(work, Kind.ERROR, failure(error, self._actor, self._endpoint.pool))

    def _answer(self, work: Work, kind: Kind, parcel: Parcel) -> None:
        if work.header.reply_to:
            due_ns = work.header.deadline_ns
            work.outbox.append(Dispatch(parcel, kind, 0, 0, REPLY_KEY, work.ordinal, deadline_ns=due_ns))
            work.ordinal += 1
            self.flush(work)

    def _dispatch(self, work: Work, port: str, parcel: Parcel, kind: Kind, value: Any, *, item: bool) -> None:
        number, edges = self._leaving[port]
        replicas = [self._spread.bind(edge, kind, value, work.header, item=item) for edge, _, _ in edges]
        header = work.header
        flags = Flag.ITEM if item else 0
        outbox = work.outbox
        # The end of a stream leaves by several ports.
        way = outbox[-1].way + 1 if outbox and outbox[-1].ordinal == work.ordinal else 0
        if header.reply_to and self._reply_ports[header.route] == port:
            reply = kind if kind == Kind.END else Kind.ITEM if item else Kind.REPLY
            due_ns = header.deadline_ns
            outbox.append(Dispatch(parcel, reply, flags, number, REPLY_KEY, work.ordinal, way, deadline_ns=due_ns))
            way += 1
        for (edge, _, _), replica in zip(edges, replicas, strict=True):
            due_ns = self.ways_out.deadline_along(edge, header)
            outbox.append(Dispatch(parcel, kind, flags, number, edge, work.ordinal, way, replica, due_ns))
            way += 1

    def flush(self, work: Work) -> bool:
        """Publishes what waits, in order; True when nothing is left."""
        outbox = work.outbox
        while outbox:
            dispatch = outbox[0]
            if not work.was_sent(dispatch) and not self._publish(work, dispatch):
                if work is not self.own_account:  # what others send meanwhile will overwrite its records in the rings
                    self._table.sent(work.row, dispatch.ordinal, dispatch.way)
                return False
            if not outbox:
                return True  # its caller was found to be gone
            outbox.popleft()
            if work.row and (not outbox or outbox[0].ordinal != dispatch.ordinal):
                self._table.sent(work.row, dispatch.ordinal + 1)
        return True

    def could_go(self, work: Work) -> bool:
        """Whether the first output that waits would find room now, or its deadline has passed."""
        if not work.outbox:
            return True
        dispatch = work.outbox[0]
        if dispatch.deadline_ns and now_ns() >= dispatch.deadline_ns:
            return True
        if dispatch.edge == REPLY_KEY:
            producer = self.replies.get(work.header.reply_to)
            return producer is None or self._has_room(producer, work.header, dispatch)
        return dispatch.parcel.can_go(self._spread.lane_for(dispatch, work.header))

    def _publish(self, work: Work, dispatch: Dispatch) -> bool:
        """Sends it, or disposes of it as the edge's policy says; False if it must wait."""
        if dispatch.edge == REPLY_KEY:
            return self._reply(work, dispatch)
        edge = self.routing.spec.edges[dispatch.edge]
        waiting = self.overflow.get(dispatch.edge)
        producer = self._spread.lane_for(dispatch, work.header)
        if not waiting and dispatch.parcel.can_go(producer):
            self._write(producer, work, dispatch, self.routing.number[edge.target])
            self._spread.went(dispatch, producer)
            return True
        return self._full(work, dispatch, edge, producer)

    def _reply(self, work: Work, dispatch: Dispatch) -> bool:
        reply_to, deadline = work.header.reply_to, work.header.deadline_ns
        if not self.knows(reply_to):
            return True  # the caller is gone
        producer = self.replies[reply_to]
        try:
            has_room = self._has_room(producer, work.header, dispatch)
        except CorruptLane:
            return False  # this may be inside a handler: it is the worker's own look at the lane that ends it
        if not has_room:
            # A caller that has given up, and does not even take in that it has, must hold up nobody.
            return bool(deadline and now_ns() >= deadline)
        self._write(producer, work, dispatch, 0)
        if dispatch.kind == Kind.ITEM:
            self._items[work.header.key] = self._items.get(work.header.key, 0) + 1
        else:
            self._items.pop(work.header.key, None)
        return True

    def knows(self, caller: int) -> bool:
        """Whether there is a way back to a caller. Its lanes are opened before it may call, but may lie unread."""
        if caller not in self.replies:
            self._look_for_lanes()
        return caller in self.replies

    def _has_room(self, producer: Producer, header: Header, dispatch: Dispatch) -> bool:
        """Whether the caller takes one more record.

        A stream runs ahead of its reader by a window. All streams together may fill half of the lane: the rest is kept
        for single answers, of which a caller awaits no more than that. So a caller that does not read a stream stops
        that stream, and nobody else.
        """
        if dispatch.kind == Kind.ITEM:
            half = producer.capacity // 2
            if producer.room(half + 1) <= half:
                return False
            read = producer.items_read(header.request)
            if self._items.setdefault(header.key, read) - read >= STREAM_WINDOW:
                return False
        return dispatch.parcel.can_go(producer)

    def _write(self, producer: Producer, work: Work, dispatch: Dispatch, target: int) -> None:
        header = work.header
        head = (
            dispatch.source,
            target,
            work.attempt,
            *header[5:8],  # reply_to, route and request
            dispatch.deadline_ns,
            *header[9:11],  # the trace
            now_ns(),
            work.lane,
            dispatch.ordinal,
            work.sequence,
        )
        dispatch.parcel.publish(producer, dispatch.kind, dispatch.flags, head)
        self._stats.count_sent()
        if dispatch.since_ns:
            producer.count("blocked")
            self._unblock(dispatch)

    def _full(self, work: Work, dispatch: Dispatch, edge: EdgeSpec, producer: Producer) -> bool:
        deadline = dispatch.deadline_ns
        if edge.when_full == "block":
            dispatch.since_ns = dispatch.since_ns or now_ns()
            self.edges[dispatch.edge][0].block(dispatch.since_ns)
            if not deadline or now_ns() < deadline:
                return False
            producer.count("expired")
            self._unblock(dispatch)
            self._drop(work, DeadlineExceeded(f"edge {edge.source} -> {edge.target} was full until the deadline"))
        elif edge.when_full == "drop_oldest":
            self._overflow(work, dispatch, edge, producer)
        else:
            producer.count("rejected" if edge.when_full == "reject" else "dropped_newest")
            reason = EdgeFull(f"edge {edge.source} -> {edge.target} is full: {edge.capacity} messages wait")
            self._drop(work, reason, is_missed=edge.when_full == "reject" or not dispatch.flags & Flag.ITEM)
        return True

    def _unblock(self, dispatch: Dispatch) -> None:
        """Its wait is over. The edge's first lane shows it, for the message may go by another than it waited for."""
        self.edges[dispatch.edge][0].unblock(dispatch.since_ns, now_ns())
        dispatch.since_ns = 0

    def abandon(self, work: Work) -> None:
        """What still waits to leave is wanted no more."""
        if work.outbox and work.outbox[0].since_ns:
            self._unblock(work.outbox[0])
        work.outbox.clear()

    def _overflow(self, work: Work, dispatch: Dispatch, edge: EdgeSpec, producer: Producer) -> None:
        waiting = self.overflow.setdefault(dispatch.edge, deque())
        waiting.append((work, dispatch))
        if len(waiting) > edge.capacity:
            oldest, dropped = waiting.popleft()
            producer.count("dropped_oldest")
            reason = EdgeFull(f"edge {edge.source} -> {edge.target} is full and newer messages came")
            self._drop(oldest, reason, is_missed=not dropped.flags & Flag.ITEM)

    @property
    def holds_any(self) -> bool:
        """Whether messages wait here that hold up no input."""
        sends = self.sends  # whose length has the price of a call
        waiting = self.own_account.outbox or sends.turns or sends.paused or self._cancels
        return bool(waiting or any(self.overflow.values()))

    def stats(self) -> dict[str, int]:
        """What waits here for room, and the streams that are open."""
        own = len(self.own_account.outbox) + len(self.sends)
        waiting = {"own_account": own, "overflow": sum(map(len, self.overflow.values()))}
        return {**waiting, "cancels": len(self._cancels), "streams": len(self._items)}

    def can_shed(self) -> bool:
        """Whether one of them could go now."""
        if (self.own_account.outbox and self.could_go(self.own_account)) or self.sends.can_go():
            return True
        if any(producer.room() for producer, _, _ in self._cancels):
            return True
        return any(
            waiting and waiting[0][1].parcel.can_go(self._spread.lane_for(waiting[0][1], waiting[0][0].header))
            for waiting in self.overflow.values()
        )

    def shed(self) -> None:
        """Lets messages go that hold up no input, while there is room."""
        self._send_cancels()
        self.flush(self.own_account)
        self.sends.admit()
        for edge, waiting in self.overflow.items():
            target = self.routing.number[self.routing.spec.edges[edge].target]
            while waiting:
                work, dispatch = waiting[0]
                producer = self._spread.lane_for(dispatch, work.header)
                if not dispatch.parcel.can_go(producer):
                    break
                waiting.popleft()
                self._write(producer, work, dispatch, target)
                self._spread.went(dispatch, producer)

    def _drop(self, work: Work, error: SlabwireError, *, is_missed: bool = True) -> None:
        """Counts a message that goes no further. Its caller is told, unless a stream may miss it."""
        self._stats.count("dropped")
        if work.header.reply_to and is_missed:
            parcel = Parcel(wire_form(error), self._endpoint.pool)
            # Answered at once, past the outbox, at whose front the dropped message still stands.
            self._reply(work, Dispatch(parcel, Kind.ERROR, 0, 0, REPLY_KEY, work.ordinal))

    def forget_caller(self, endpoint: int) -> None:
        """A caller is gone."""
        self.replies.pop(endpoint, None)
        for key in [each for each in self._items if each[0] == endpoint]:
            del self._items[key]

    def forget_streams(self, cancels: Cancels) -> None:
        """Nobody reads them any more."""
        for key in [each for each in self._items if Header(Kind.DATA, reply_to=each[0], request=each[1]) in cancels]:
            del self._items[key]

    def streams_to_nobody(self, work: Work) -> bool:
        """Whether it is a stream of answers alone, and its caller is gone: it might never end."""
        caller = work.header.reply_to
        return caller not in self.replies and self.ways_out.streams_answers_alone(work) and not self.knows(caller)

    def forward_cancel(self, header: Header) -> None:
        """Tells the next hops of a request that nobody waits for it; those whose lanes are full when they have room."""
        work = Work(header, 0, 0, 0)
        for number, producers in self.edges.items():
            target = self.routing.number[self.routing.spec.edges[number].target]
            self._cancels.extend((producer, work, target) for producer in producers)
        self._send_cancels()

    def _send_cancels(self) -> None:
        for _ in range(len(self._cancels)):
            producer, work, target = self._cancels.popleft()
            if producer.room():
                parcel = Parcel(None, self._endpoint.pool)
                self._write(producer, work, Dispatch(parcel, Kind.CANCEL, 0, 0, 0, 0), target)
            else:
                self._cancels.append((producer, work, target))

    def corrupt_callers(self) -> set[int]:
        """The callers whose lanes hold impossible words."""
        return {caller for caller, producer in self.replies.items() if not _is_sound(producer)}

    def lanes(self) -> list[tuple[int, Producer]]:
        """All lanes out, each with the name of its way: an edge's number or REPLY_KEY."""
        along = [(edge, producer) for edge, producers in self.edges.items() for producer in producers]
        return along + [(REPLY_KEY, producer) for producer in self.replies.values()]


def _is_sound(producer: Producer) -> bool:
    """Whether the word that its consumer writes can be right."""
    try:
        producer.room(producer.capacity + 1)
    except CorruptLane:
        return False
    return True
