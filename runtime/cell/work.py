"""One input that an actor is handling, with the outputs that wait to leave."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping
from contextvars import Context, ContextVar
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ...shm.bell import now_ns
from ...shm.inflight import RUNNING_ROW
from ..message.header import Header

if TYPE_CHECKING:
    import asyncio

    from ...shm.lease import Lease
    from ..actor.handler import Handler
    from ..message.payload import Parcel

REPLY_KEY = -1  # where edges are named by their number, this names the way back to the caller


@dataclass(slots=True)
class Dispatch:
    """One output on its way: to the caller (`edge` is REPLY_KEY), or along an edge. `way` is its place among those by
    which this output leaves, `since_ns` when it first found no room, `replica` the one that it must go to (-1: any).
    On a side branch `deadline_ns` is 0, for the call may be answered by then.
    """

    parcel: Parcel
    kind: int
    flags: int
    source: int
    edge: int
    ordinal: int
    way: int = 0
    replica: int = -1
    deadline_ns: int = 0
    since_ns: int = 0


class Work:
    """`row` is its row in the in-flight table. `floor`, `ways` and `sent` are what a predecessor had published: outputs
    of ordinals below `floor` are not sent again, nor that one by its first `ways`; `last` is the kind and ordinal of
    the one that ended the stream. `lease` is that of its own record's block, until it is finished.
    `pardons` of the attempts at it ended because the process was told to leave.
    `left`: the process goes, and a successor will begin it again.
    `recorded` is its event of the flight recorder while that runs, `outcome` what becomes of it if it is not answered.

    Made for every message: what most of them never set are attributes of the class.
    """

    row = RUNNING_ROW
    ordinal = 0
    floor = 0
    ways = 0
    sent: Mapping[int, int] = MappingProxyType({})
    last: tuple[int, int] | None = None
    items: Iterator[Any] | AsyncIterator[Any] | None = None
    context: Context = Context()  # a generator's own
    task: asyncio.Task[None] | None = None
    room: asyncio.Future[None] | None = None
    value: Any = None
    key = ""  # the idempotency key of its request, where it is the first to handle it
    lease: Lease | None = None
    started_ns = 0
    recorded = 0
    outcome = 0
    pardons = 0
    finished = False
    cancelled = False
    left = False

    def __init__(self, header: Header, lane: int, sequence: int, attempt: int, handler: Handler | None = None) -> None:
        self.header = header
        self.lane = lane
        self.sequence = sequence
        self.attempt = attempt
        self.handler = handler
        self.outbox: deque[Dispatch] = deque()

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

    def leave(self) -> None:
        """From now on nothing that becomes of it counts: it is its successor's."""
        self.left = True
        if self.lease is not None:
            self.lease.abandon()

    def sent_by(self, edge: int, way: int) -> int:
        """How many outputs a predecessor published by this way, the `way`-th of the output."""
        return max(self.sent.get(edge, self.floor), self.floor + (way < self.ways))

    def due_ns(self) -> int:
        """Until when the first output that waits may wait, on CLOCK_MONOTONIC; 0 for as long as it must."""
        return self.outbox[0].deadline_ns if self.outbox else 0

    def was_sent(self, dispatch: Dispatch) -> bool:
        """Whether a predecessor published this output."""
        return dispatch.ordinal < self.sent_by(dispatch.edge, dispatch.way)


# The input that the running handler, or the running task, works on.
current: ContextVar[Work | None] = ContextVar("slabwire_current", default=None)


def cause() -> tuple[int, int]:
    """The lane and the sequence of the input whose handler runs; zeros outside of any."""
    work = current.get()
    return (work.lane, work.sequence) if work is not None else (0, 0)
