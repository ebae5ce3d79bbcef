"""What becomes of an output whose edge is full: one function for each `when_full`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from ...shm.bell import now_ns
from ...shm.pool import Pool
from ...shm.producer import Producer
from ..errors import DeadlineExceeded, EdgeFull, SlabwireError
from ..graph.compiled import Routing
from ..message.header import Flag, Kind
from ..message.payload import Payload, wire_form
from ..spec import EdgeSpec, WhenFull
from ..telemetry.stats import CellStats
from .replica_lanes import ReplicaLanes
from .reply_lanes import ReplyLanes
from .work import REPLY_KEY, Dispatch, Work


class FullEdges:
    """For one actor instance. `spread` has the lanes of its edges. One thread.

    `overflow` holds the messages of drop_oldest edges, where there are any, by edge. They hold up nobody, so their
    inputs are finished before they have left.
    """

    def __init__(
        self, routing: Routing, spread: ReplicaLanes, replies: ReplyLanes, pool: Pool, stats: CellStats
    ) -> None:
        self.overflow: dict[int, deque[tuple[Work, Dispatch]]] = {}
        self._routing = routing
        self._spread = spread
        self._replies = replies
        self._pool = pool
        self._stats = stats

    def send(self, work: Work, dispatch: Dispatch) -> bool:
        """Sends an output along its edge, or disposes of it as the edge's policy says; False if it must wait."""
        number = dispatch.edge
        producer = self._spread.lane_for(dispatch, work.header)
        if number in self.overflow or not dispatch.payload.can_go(producer):
            edge = self._routing.spec.edges[number]
            return _POLICIES[edge.when_full](self, work, dispatch, edge, producer)
        self._write(work, dispatch, producer)
        if dispatch.since_ns:
            producer.count("blocked")
            self._unblock(dispatch)
        return True

    def _write(self, work: Work, dispatch: Dispatch, producer: Producer) -> None:
        target = self._routing.number[self._routing.spec.edges[dispatch.edge].target]
        work.publish(dispatch, producer, target, self._stats)
        self._spread.went(dispatch, producer)

    # -- the policies ------------------------------------------------------------------------------------------------

    def _block(self, work: Work, dispatch: Dispatch, edge: EdgeSpec, producer: Producer) -> bool:
        """The output waits, until its deadline at most."""
        dispatch.since_ns = dispatch.since_ns or now_ns()
        self._spread.lanes[dispatch.edge][0].block(dispatch.since_ns)
        if not dispatch.deadline_ns or now_ns() < dispatch.deadline_ns:
            return False
        producer.count("expired")
        self._unblock(dispatch)
        self._drop(work, DeadlineExceeded(f"edge {edge.source} -> {edge.target} was full until the deadline"))
        return True

    def _drop_oldest(self, work: Work, dispatch: Dispatch, edge: EdgeSpec, producer: Producer) -> bool:
        """The output waits aside; of as many as the edge holds the oldest goes."""
        waiting = self.overflow.setdefault(dispatch.edge, deque())
        waiting.append((work, dispatch))
        if len(waiting) > edge.capacity:
            oldest, dropped = waiting.popleft()
            producer.count("dropped_oldest")
            reason = EdgeFull(f"edge {edge.source} -> {edge.target} is full and newer messages came")
            self._drop(oldest, reason, is_missed=not dropped.flags & Flag.ITEM)
        return True

    def _drop_newest(self, work: Work, dispatch: Dispatch, edge: EdgeSpec, producer: Producer) -> bool:
        """The output goes no further. A stream may miss an item."""
        producer.count("dropped_newest")
        self._drop(work, _full(edge), is_missed=not dispatch.flags & Flag.ITEM)
        return True

    def _reject(self, work: Work, _: Dispatch, edge: EdgeSpec, producer: Producer) -> bool:
        """The output goes no further, and its caller is told."""
        producer.count("rejected")
        self._drop(work, _full(edge))
        return True

    def _drop(self, work: Work, error: SlabwireError, *, is_missed: bool = True) -> None:
        """Counts a message that goes no further. Its caller is told, unless a stream may miss it."""
        self._stats.count("dropped")
        if work.header.reply_to and is_missed:
            payload = Payload(wire_form(error), self._pool)
            # Answered at once, past the outbox, at whose front the dropped message still stands.
            self._replies.send(work, Dispatch(payload, Kind.ERROR, 0, 0, REPLY_KEY, work.ordinal))

    # -- what waits --------------------------------------------------------------------------------------------------

    def abandon(self, work: Work) -> None:
        """The outputs of an input that still wait are wanted no more."""
        if work.outbox and work.outbox[0].since_ns:
            self._unblock(work.outbox[0])
        work.outbox.clear()

    def _unblock(self, dispatch: Dispatch) -> None:
        """A wait is over. The edge's first lane shows the waits of all its lanes: a message may leave by another lane
        than the one that it waited for.
        """
        self._spread.lanes[dispatch.edge][0].unblock(dispatch.since_ns, now_ns())
        dispatch.since_ns = 0

    def blocked_lane(self, edges: Iterable[tuple[int, EdgeSpec, int]]) -> Producer | None:
        """A lane of the first of these edges that has no room now, of those that wait for it; None: all have some."""
        for number, edge, _ in edges:
            lanes = self._spread.lanes[number]
            if edge.when_full == "block" and not any(each.free_records() > 0 and each.can_lend() for each in lanes):
                return lanes[0]
        return None

    def can_shed(self) -> bool:
        """Whether a message of a drop_oldest edge could go now."""
        return any(self._open_lane(*waiting[0]) for waiting in self.overflow.values())

    def shed(self) -> None:
        """Lets messages of drop_oldest edges go while there is room."""
        for edge, waiting in list(self.overflow.items()):
            while waiting and (producer := self._open_lane(*waiting[0])) is not None:
                work, dispatch = waiting.popleft()
                self._write(work, dispatch, producer)
            if not waiting:
                del self.overflow[edge]

    def _open_lane(self, work: Work, dispatch: Dispatch) -> Producer | None:
        producer = self._spread.lane_for(dispatch, work.header)
        return producer if dispatch.payload.can_go(producer) else None


def _full(edge: EdgeSpec) -> EdgeFull:
    return EdgeFull(f"edge {edge.source} -> {edge.target} is full: {edge.capacity} messages wait")


# False: the output waits, and all behind it.
_Policy = Callable[[FullEdges, Work, Dispatch, EdgeSpec, Producer], bool]
_POLICIES: dict[WhenFull, _Policy] = {
    "block": FullEdges._block,
    "drop_oldest": FullEdges._drop_oldest,
    "drop_newest": FullEdges._drop_newest,
    "reject": FullEdges._reject,
}
