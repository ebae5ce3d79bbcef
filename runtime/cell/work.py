"""One input that an actor is handling, with the outputs that wait to leave."""

from __future__ import annotations

from collections import deque
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ...shm.bell import now_ns
from ...shm.inflight import RUNNING_ROW
from ..message.header import Flag, Header
from .input_states import INPUT, TAKEN, Event, State

if TYPE_CHECKING:
    from ...shm.lease import Lease
    from ...shm.producer import Producer
    from ..actor.handler import Handler
    from ..message.collected import Collected
    from ..message.delegated import ReportTo
    from ..message.payload import Payload
    from ..telemetry.stats import CellStats


# Where edges are named by their number, these name the way back to the caller, the way of a request that is handed on,
# and that of a report to who has handed it on. The last two lie in lanes of calls.
REPLY_KEY, DELEGATE_KEY, REPORT_KEY = -1, -2, -3
# When a request has been handed on, the caller is told as by a last way of the same output: no actor has so many edges.
MOVED_WAY = 0xFFFF


@dataclass(slots=True)
class Dispatch:
    """One output on its way: to the caller (`edge` is REPLY_KEY), or along an edge. `way` is its place among those by
    which this output leaves, `since_ns` when it first found no room, `replica` the one that it must go to (-1: any).
    On a side branch `deadline_ns` is 0, for the call may be answered by then.
    """

    payload: Payload
    kind: int
    flags: int
    source: int
    edge: int
    ordinal: int
    way: int = 0
    replica: int = -1
    deadline_ns: int = 0
    since_ns: int = 0


@dataclass(slots=True)
class Published:
    """The outputs that a predecessor had published: all of ordinals below `floor`, and that one by its first `ways`;
    the table says so. `by_edge` is what the rings say: by edge, how many. `last` is the kind and the ordinal of the
    output that ended the stream or the call. `delegated`: the input was handed on, on that route, as its output of that
    ordinal, by that lane.
    """

    floor: int
    ways: int
    by_edge: dict[int, int] = field(default_factory=dict)
    last: tuple[int, int] | None = None
    delegated: tuple[int, int, Producer] | None = None

    @property
    def was_delegated(self) -> bool:
        """Whether the input was handed on. Where the lane has forgotten it, the table says that the caller was told."""
        return self.delegated is not None or self.ways == MOVED_WAY

    def count(self, edge: int, way: int) -> int:
        """How many outputs left along an edge, which is the `way`-th of each output."""
        return max(self.by_edge.get(edge, self.floor), self.floor + (way < self.ways))

    def highest(self) -> int:
        """How many outputs left by at least one way."""
        return max(self.floor + bool(self.ways), *self.by_edge.values(), 0)

    def holds(self, dispatch: Dispatch) -> bool:
        """Whether this output was published."""
        return dispatch.ordinal < self.count(dispatch.edge, dispatch.way)


class Work:
    """`row` is its row in the in-flight table. `published` is what a predecessor had published for it (None: it had
    none). `lease` is that of its own record's block, until the input is finished.
    `pardons` of the attempts at it ended because the process was told to leave.
    `recorded` is its event of the flight recorder while that runs, `outcome` what becomes of it if it is not answered.

    One is made for every message: what most of them never set are attributes of the class.
    """

    row = RUNNING_ROW
    state: State = TAKEN
    ordinal = 0
    published: Published | None = None
    value: Any = None
    key = ""  # the idempotency key of its request, where it is the first to handle it
    lease: Lease | None = None
    hops = 0  # how often its request was handed on
    reports: tuple[ReportTo, ...] = ()  # who wants to know what comes of it; empty once they were told
    collected: Collected | None = None
    started_ns = 0
    recorded = 0
    outcome = 0
    pardons = 0
    has_taken = False  # a predecessor, of the stream that its caller sends

    def __init__(self, header: Header, lane: int, sequence: int, attempt: int, handler: Handler | None = None) -> None:
        self.header = header
        self.lane = lane
        self.sequence = sequence
        self.attempt = attempt
        self.handler = handler
        self.outbox: deque[Dispatch] = deque()

    def advance(self, event: Event) -> bool:
        """Goes on to the state that an event leads to; True if that is another one. Raises ImpossibleEvent."""
        before, self.state = self.state, INPUT.after(self.state, event)
        return self.state is not before

    def hand_on(self) -> None:
        """From now on nothing that becomes of the input counts: it is the successor's."""
        self.advance(Event.HAND_ON)
        if self.lease is not None:
            self.lease.abandon()

    def take_arguments(self, handler: Handler) -> dict[str, Any]:
        """What the handler gets, which is not kept here. Raises MessageError for a value that does not fit."""
        value, self.value = self.value, None
        arguments = handler.bind(value, bool(self.header.flags & Flag.FIELDS))
        if handler.spec.resumable:
            arguments["sent"] = self.ordinal
        return arguments

    def head(self, source: int, target: int, ordinal: int, deadline_ns: int) -> tuple[int, ...]:
        """The numbers of an output's header, from `source` to `cause_sequence`: whose request the output serves, and
        that this input caused it.
        """
        header = self.header
        return (
            source,
            target,
            self.attempt,
            header.reply_to,
            header.route,
            header.request,
            deadline_ns,
            header.trace_high,
            header.trace_low,
            now_ns(),
            self.lane,
            ordinal,
            self.sequence,
        )

    def publish(self, dispatch: Dispatch, producer: Producer, target: int, stats: CellStats) -> None:
        """Publishes one of its outputs in a lane, for the input port of the number `target` (0: a caller)."""
        head = self.head(dispatch.source, target, dispatch.ordinal, dispatch.deadline_ns)
        dispatch.payload.publish(producer, dispatch.kind, dispatch.flags, head)
        stats.count_sent()

    def due_ns(self) -> int:
        """Until when the first output that waits may wait, on CLOCK_MONOTONIC; 0 for as long as it must."""
        return self.outbox[0].deadline_ns if self.outbox else 0


# The input that the running handler, or the running task, works on.
current: ContextVar[Work | None] = ContextVar("slabwire_current", default=None)


def cause() -> tuple[int, int]:
    """The lane and the sequence of the input whose handler runs; zeros outside of any."""
    work = current.get()
    return (work.lane, work.sequence) if work is not None else (0, 0)
