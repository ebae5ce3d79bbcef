"""One input that an actor is handling, with the outputs that wait to leave."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..shm.inflight import RUNNING_ROW
from .message import Header

if TYPE_CHECKING:
    import asyncio

    from ..shm.lease import Lease
    from .handler import Handler
    from .parcel import Parcel

REPLY_KEY = -1  # where edges are named by their number, this names the way back to the caller


@dataclass(slots=True)
class Dispatch:
    """One output on its way: to the caller (`edge` is REPLY_KEY), or along an edge. `way` is its place among those by
    which this output leaves.
    """

    parcel: Parcel
    kind: int
    flags: int
    source: int
    edge: int
    ordinal: int
    way: int = 0


@dataclass(slots=True, eq=False)
class Work:
    """`row` is its row in the in-flight table. `floor`, `ways` and `sent` are what a predecessor had published: outputs
    of ordinals below `floor` are not sent again, nor that one by its first `ways`; `last` is the kind and ordinal of
    the one that ended the stream. `lease` is that of its own record's block, until it is finished.
    """

    header: Header
    lane: int
    sequence: int
    attempt: int
    row: int = RUNNING_ROW
    ordinal: int = 0
    floor: int = 0
    ways: int = 0
    sent: dict[int, int] = field(default_factory=dict)
    last: tuple[int, int] | None = None
    outbox: deque[Dispatch] = field(default_factory=deque)
    handler: Handler | None = None
    items: Iterator[Any] | AsyncIterator[Any] | None = None
    task: asyncio.Task[None] | None = None
    room: asyncio.Future[None] | None = None
    value: Any = None
    lease: Lease | None = None
    started_ns: int = 0
    finished: bool = False
    cancelled: bool = False

    def sent_by(self, edge: int, way: int) -> int:
        """How many outputs a predecessor published by this way, the `way`-th of the output."""
        return max(self.sent.get(edge, self.floor), self.floor + (way < self.ways))

    def was_sent(self, dispatch: Dispatch) -> bool:
        """Whether a predecessor published this output."""
        return dispatch.ordinal < self.sent_by(dispatch.edge, dispatch.way)


# The input that the running handler, or the running task, works on.
current: ContextVar[Work | None] = ContextVar("slabwire_current", default=None)
