"""The ways out of one actor instance: along its edges, and back to callers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from ...shm.bell import now_ns
from ...shm.inflight import Inflight
from ...shm.producer import Producer
from ..actor.delegation import Delegation
from ..dataplane.caller import Caller
from ..dataplane.endpoint import Endpoint
from ..errors import CorruptLane, SlabwireError
from ..graph.compiled import Routing
from ..message.fast_path import encode_and_publish, publish_batch
from ..message.header import Flag, Header, Kind
from ..message.payload import Payload, failure, payload_from
from ..telemetry.stats import CellStats
from .cancels import ForwardedCancels
from .delegations import Delegations
from .full_edges import FullEdges
from .replica_lanes import ReplicaLanes
from .reply_lanes import ReplyLanes
from .reports import Reports
from .sends import Sends
from .ways_out import WaysOut
from .work import DELEGATE_KEY, REPLY_KEY, REPORT_KEY, Dispatch, Work

# Members of an enumeration are looked up by attribute, at every message.
_DATA, _REPLY, _REPLY_ITEM, _ITEM = int(Kind.DATA), int(Kind.REPLY), int(Kind.ITEM), Flag.ITEM


class Way(Protocol):
    """A way out that is no edge."""

    def send(self, work: Work, dispatch: Dispatch, /) -> bool:
        """Sends an output, or disposes of it; False if it must wait."""

    def could_go(self, header: Header, dispatch: Dispatch, /) -> bool:
        """Whether `send` would get rid of it now."""


class Outlets:
    """Sends for one actor instance. An output that finds no room waits in the outbox of the input that caused it.

    `edges` has the lanes along edges by number, `replies` those to callers. `look_for_lanes` is called when the lane of
    a caller is not known: its offer may lie unread. `caller` is that of the worker.
    """

    def __init__(
        self,
        actor: str,
        routing: Routing,
        endpoint: Endpoint,
        table: Inflight,
        stats: CellStats,
        look_for_lanes: Callable[[], Any],
        caller: Caller,
    ) -> None:
        self._actor = actor
        self.routing = routing
        self.endpoint = endpoint
        self.table = table
        self.stats = stats
        self._pool = endpoint.pool
        self._spread = ReplicaLanes(routing)
        self.edges = self._spread.lanes
        self.look_for_lanes = look_for_lanes
        self.callers = ReplyLanes(stats, look_for_lanes)
        self.replies = self.callers.lanes
        self._full = FullEdges(routing, self._spread, self.callers, endpoint.pool, stats)
        self._overflow, self.abandon = self._full.overflow, self._full.abandon
        self.reports = Reports(endpoint, caller, stats)
        self.delegations = Delegations(actor, routing, endpoint, caller, self.callers, self.reports, stats)
        self._ways: dict[int, Way] = {
            REPLY_KEY: self.callers,
            DELEGATE_KEY: self.delegations,
            REPORT_KEY: self.reports,
        }
        self.cancels = ForwardedCancels(self.edges, routing, endpoint.pool, stats, caller.can_spare)
        self.ways_out = WaysOut(actor, routing)
        self._leaving, self._reply_ports = self.ways_out.leaving, self.ways_out.reply_ports
        self.outputs = [each.port for each in routing.spec.actor(actor).outputs]
        self.routes = len(self._reply_ports)
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
            payload = payload_from(self._actor, port, value, self._pool)
            self._dispatch(work, port, payload, Kind.DATA, value, item=item)
            work.ordinal += 1
            self.flush(work)
        if work.reports and self._reply_ports[work.header.route] == port:
            (self.reports.item if item else self.reports.answered)(work, value)
            self.flush(work)

    def delegate(self, work: Work, delegation: Delegation) -> None:
        """Hands an input on, as its handler has said. Raises MessageError, TooManyHops or OutOfMemory."""
        self.delegations.give(work, delegation)
        self.flush(work)

    def report_cancelled(self, work: Work) -> None:
        """Tells who has handed this request on, and wanted to know, that nobody waits for its answer any more."""
        if work.reports:
            self.reports.cancelled(work)
            self.flush(work)

    def lane_of_answers(self, work: Work, port: str) -> Producer | None:
        """The lane to the caller of an input; None where what leaves by the port does not go to the caller alone."""
        caller = work.header.reply_to
        if not caller or self._leaving[port][1] or self._reply_ports[work.header.route] != port:
            return None
        return self.replies[caller] if self.callers.knows(caller) else None

    def publish_batch(self, producer: Producer, data: bytes, count: int, work: Work) -> bool:
        """Items for the caller of `work`, which is the input of the first of them, as `packed_batch` has packed them;
        False, with nothing done, if there is no room. Raises CorruptLane, or OutOfMemory.
        """
        head = work.head(0, 0, 0, 0)
        if not (self.callers.takes_items(producer) and publish_batch(data, count, self._pool, producer, head)):
            return False
        self.stats.count("sent", count)
        return True

    def full_lane(self, port: str) -> Producer | None:
        """A lane that lets no output of this port leave now, of those that wait for room."""
        return self._full.blocked_lane(self._leaving[port][1])

    def _went_straight(self, work: Work, port: str, value: Any, *, item: bool) -> bool:
        """Sends an output that leaves by one way, if that is open; all others are for `_dispatch`."""
        header = work.header
        number, edges = self._leaving[port]
        if header.reply_to and self._reply_ports[header.route] == port:
            producer = self.replies.get(header.reply_to)
            if edges or producer is None or (item and not self._takes_item(producer, header)):
                return False
            kind, target, deadline_ns = (_REPLY_ITEM if item else _REPLY), 0, header.deadline_ns
        else:
            if len(edges) != 1:
                return False
            edge, _, target = edges[0]
            lanes = self.edges[edge]
            if len(lanes) != 1 or edge in self._overflow:
                return False
            kind, producer = _DATA, lanes[0]
            deadline_ns = header.deadline_ns and self.ways_out.deadline_along(edge, header)
        head = work.head(number, target, work.ordinal, deadline_ns)
        try:
            if not encode_and_publish(value, self._pool, producer, kind, _ITEM * item, head):
                return False
        except CorruptLane:
            return False  # this may be inside a handler: the worker's own look at the lane ends the connection
        self.stats.words[self.stats.sent] += 1  # `count_sent`, without the price of a call
        if kind == _REPLY_ITEM:
            self.callers.credit(producer, header).sent += 1
        work.ordinal += 1
        if work.row:
            self.table.sent(work.row, work.ordinal)
        return True

    def _takes_item(self, producer: Producer, header: Header) -> bool:
        try:
            return self.callers.takes_item(producer, header)
        except CorruptLane:
            return False  # as above

    def answer_none(self, work: Work, port: str) -> None:
        """Ends the request with None, which a handler on the way to the reply returned, not one on a side branch. An
        item of a stream that becomes nothing is no answer.
        """
        header = work.header
        if header.reply_to and self.ways_out.leads_to_reply(header.route, port) and not header.flags & _ITEM:
            self._answer(work, Kind.REPLY, Payload(None, self._pool))
            if work.reports:
                self.reports.answered(work, None)
                self.flush(work)

    def end_stream_of(self, work: Work, port: str) -> None:
        """The handler of an input has no more items. Where the input is an item itself, its stream goes on: the end of
        that comes along the edge.
        """
        if not work.header.flags & _ITEM:
            self.end_stream(work, [port])

    def end_stream(self, work: Work, ports: list[str]) -> None:
        """Tells the caller, or the actor that got the items, that there are no more."""
        payload = Payload(None, self._pool)
        for port in ports:
            self._dispatch(work, port, payload, Kind.END, None, item=True)
        work.ordinal += 1
        if work.reports:
            self.reports.ended(work)
        self.flush(work)

    def fail(self, work: Work, error: SlabwireError) -> None:
        """Ends the request with an error, if anybody waits for it."""
        self._answer(work, Kind.ERROR, failure(error, self._actor, self._pool))
        if work.reports:
            self.reports.failed(work, error)
            self.flush(work)

    def _answer(self, work: Work, kind: Kind, payload: Payload) -> None:
        if work.header.reply_to:
            due_ns = work.header.deadline_ns
            work.outbox.append(Dispatch(payload, kind, 0, 0, REPLY_KEY, work.ordinal, deadline_ns=due_ns))
            work.ordinal += 1
            self.flush(work)

    def _dispatch(self, work: Work, port: str, payload: Payload, kind: Kind, value: Any, *, item: bool) -> None:
        """Puts an output into the outbox, once for each way by which it leaves."""
        number, edges = self._leaving[port]
        header, outbox = work.header, work.outbox
        replicas = [self._spread.bind(edge, kind, value, header, item=item) for edge, _, _ in edges]
        flags = _ITEM * item
        # The end of a stream leaves by several ports.
        way = outbox[-1].way + 1 if outbox and outbox[-1].ordinal == work.ordinal else 0
        if header.reply_to and self._reply_ports[header.route] == port:
            reply = kind if kind == Kind.END else Kind.ITEM if item else Kind.REPLY
            due_ns = header.deadline_ns
            outbox.append(Dispatch(payload, reply, flags, number, REPLY_KEY, work.ordinal, way, deadline_ns=due_ns))
            way += 1
        for (edge, _, _), replica in zip(edges, replicas, strict=True):
            due_ns = self.ways_out.deadline_along(edge, header)
            outbox.append(Dispatch(payload, kind, flags, number, edge, work.ordinal, way, replica, due_ns))
            way += 1

    def flush(self, work: Work) -> bool:
        """Publishes the outputs that wait, in order; True when nothing is left."""
        outbox, published = work.outbox, work.published
        while outbox:
            dispatch = outbox[0]
            send = self._full.send if dispatch.edge >= 0 else self._ways[dispatch.edge].send
            if (published is None or not published.holds(dispatch)) and not send(work, dispatch):
                if work is not self.own_account:  # what others send meanwhile will overwrite its records in the rings
                    self.table.sent(work.row, dispatch.ordinal, dispatch.way)
                return False
            if not outbox:
                return True  # its caller was found to be gone
            outbox.popleft()
            if work.row and (not outbox or outbox[0].ordinal != dispatch.ordinal):
                self.table.sent(work.row, dispatch.ordinal + 1)
        return True

    def could_go(self, work: Work) -> bool:
        """Whether the first output that waits would find room now, or its deadline has passed."""
        if not work.outbox:
            return True
        dispatch = work.outbox[0]
        if dispatch.deadline_ns and now_ns() >= dispatch.deadline_ns:
            return True
        if dispatch.edge < 0:
            return self._ways[dispatch.edge].could_go(work.header, dispatch)
        return dispatch.payload.can_go(self._spread.lane_for(dispatch, work.header))

    # -- messages that hold up no input ------------------------------------------------------------------------------

    @property
    def holds_any(self) -> bool:
        """Whether messages wait here that hold up no input."""
        sends = self.sends
        own = self.own_account.outbox or sends.turns or sends.paused
        return bool(own or self.cancels.waiting or self._overflow)

    def waiting(self) -> int:
        """How many these are."""
        overflow = sum(map(len, self._overflow.values()))
        senders = len(self.sends.turns) + len(self.sends.paused)
        return len(self.own_account.outbox) + senders + overflow + len(self.cancels.waiting)

    def can_shed(self) -> bool:
        """Whether one of them could go now."""
        is_own = bool(self.own_account.outbox) and self.could_go(self.own_account)
        return is_own or self.sends.can_go() or self.cancels.can_go() or self._full.can_shed()

    def shed(self) -> None:
        """Lets these messages go while there is room."""
        self.cancels.flush()
        self.flush(self.own_account)
        self.sends.admit()
        self._full.shed()

    # -- callers -----------------------------------------------------------------------------------------------------

    def streams_to_nobody(self, work: Work) -> bool:
        """Whether an input makes a stream of answers alone, and its caller is gone: the stream might never end."""
        caller = work.header.reply_to
        return (
            caller not in self.replies and self.ways_out.streams_answers_alone(work) and not self.callers.knows(caller)
        )

    def lanes(self) -> list[tuple[int, Producer]]:
        """All lanes out, each with the name of its way: an edge's number, REPLY_KEY or DELEGATE_KEY."""
        along = [(edge, producer) for edge, producers in self.edges.items() for producer in producers]
        back = [(REPLY_KEY, producer) for producer in self.replies.values()]
        return along + back + self.delegations.lanes()
