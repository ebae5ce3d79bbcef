"""The requests that their callers have lost interest in, as far as one actor instance knows, and word of them."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator

from ...shm.consumer import Consumer
from ...shm.lane import RECORD_NBYTES
from ...shm.pool import Pool
from ...shm.producer import Producer
from ..graph.compiled import Routing
from ..message.capacities import EVERY_REQUEST, MOST_REMEMBERED, Key
from ..message.header import KIND_AT, Header, Kind
from ..message.payload import Payload
from ..telemetry.stats import CellStats
from .inlets import Inlets
from .work import Dispatch, Work

_DATA, _CANCEL = int(Kind.DATA), int(Kind.CANCEL)


class Cancels:
    """Remembers cancelled requests, and finds word of more behind inputs that must wait. One thread."""

    def __init__(self) -> None:
        self.keys: OrderedDict[Key, None] = OrderedDict()  # the newest last
        self._searched: dict[int, int] = {}  # lane to the record up to which it was searched

    def __contains__(self, key: Key) -> bool:
        return key in self.keys or (key[0], EVERY_REQUEST) in self.keys

    def remember(self, key: Key) -> bool:
        """Adds one; False if it was known."""
        if key in self.keys:
            return False
        self.keys[key] = None
        if len(self.keys) > MOST_REMEMBERED:
            self.keys.popitem(last=False)
        return True

    def may_lie_in(self, lanes: Iterable[Consumer]) -> bool:
        """Whether records came, behind others that must wait, which nobody has searched."""
        for lane in lanes:  # `any` of a generator costs more than the look itself
            if lane.cursor != lane.head and lane.read_head() > max(lane.cursor + 1, self._searched.get(lane.lane, 0)):
                return True
        return False

    def found_in(self, inlets: Inlets) -> Iterator[Header]:
        """Word of cancels that are not known yet; their records stay where they are. Raises CorruptLane."""
        for lane in inlets.held or inlets.lanes:
            if lane.cursor == lane.head:
                continue
            end, kinds = lane.read_head(), lane.segment.bytes[lane.ring + KIND_AT :: RECORD_NBYTES]
            for sequence in range(max(lane.cursor, self._searched.get(lane.lane, 0)), end):
                if kinds[sequence % lane.capacity] == _DATA:
                    continue  # nearly all: the rest of it is read, and judged, when its turn comes
                header = inlets.header(lane, sequence)
                if header.kind == _CANCEL and header.key not in self.keys:
                    yield header
            self._searched[lane.lane] = end


class ForwardedCancels:
    """Cancels on their way along the edges of one actor instance, whose lanes `edges` has by number. Those that find
    no room wait in `waiting`: what a reader has left unread may hold the place that other messages wait for there.
    `can_spare` says whether a lane has room for one.
    """

    def __init__(
        self,
        edges: dict[int, list[Producer]],
        routing: Routing,
        pool: Pool,
        stats: CellStats,
        can_spare: Callable[[Producer], bool],
    ) -> None:
        self.waiting: deque[tuple[Producer, Work, int]] = deque(maxlen=MOST_REMEMBERED)
        self._can_spare = can_spare
        self._edges = edges
        self._routing = routing
        self._pool = pool
        self._stats = stats

    def forward(self, header: Header, delegated: tuple[Producer, int] | None) -> None:
        """Tells the next hops of a request that nobody waits for it; those whose lanes are full when they have room.
        `delegated` is the lane by which the request was handed on, and the number of the port at its end.
        """
        work = Work(header, 0, 0, 0)
        for number, producers in self._edges.items():
            target = self._routing.number[self._routing.spec.edges[number].target]
            self.waiting.extend((producer, work, target) for producer in producers)
        if delegated is not None:
            self.waiting.append((delegated[0], work, delegated[1]))
        self.flush()

    def flush(self) -> None:
        """Sends those that find room."""
        for _ in range(len(self.waiting)):
            producer, work, target = self.waiting.popleft()
            if self._can_spare(producer):
                work.publish(
                    Dispatch(Payload(None, self._pool), Kind.CANCEL, 0, 0, 0, 0), producer, target, self._stats
                )
            else:
                self.waiting.append((producer, work, target))

    def can_go(self) -> bool:
        """Whether one of them finds room now."""
        return any(self._can_spare(producer) for producer, _, _ in self.waiting)
