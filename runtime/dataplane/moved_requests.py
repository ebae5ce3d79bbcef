"""A caller's requests that were handed on: where each lies now, so that its cancel finds it."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Mapping

from ...shm.bell import now_ns
from ...shm.producer import Producer
from ..graph.compiled import Routing
from ..message.capacities import MOST_REMEMBERED
from ..message.delegated import Whereabouts
from ..message.header import Kind
from ..message.payload import Payload
from .endpoint import Endpoint

Trace = tuple[int, int]


class MovedRequests:
    """Of one caller. `entries` are its lanes by actor instance; `can_spare` says whether one of them has room for a
    record that no cancel of its own calls needs. `places` has where they are, of those in flight by number. One thread
    at a time.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        routing: Routing,
        entries: Mapping[str, Producer],
        can_spare: Callable[[Producer], bool],
    ) -> None:
        self._endpoint = endpoint
        self._routing = routing
        self._entries = entries
        self._can_spare = can_spare
        self.places: dict[int, Whereabouts] = {}
        self._cancelled: OrderedDict[int, Trace] = OrderedDict()  # word of where they went may still come
        self.unsent: deque[tuple[int, Trace, Whereabouts]] = deque(maxlen=MOST_REMEMBERED)

    def moved(self, request: int, place: Whereabouts, *, is_pending: bool) -> None:
        """A request lies at a place now; what was heard of later hops stands. If it was cancelled, its cancel follows.
        A request that was answered is left alone.
        """
        if is_pending:
            if request not in self.places or self.places[request].hops < place.hops:
                self.places[request] = place
        elif (trace := self._cancelled.get(request)) is not None:
            self.unsent.append((request, trace, place))
            self.flush()

    def cancelled(self, request: int, trace: Trace) -> None:
        """The caller has cancelled a request where it began. Follows it to where it is."""
        self._cancelled[request] = trace
        if len(self._cancelled) > MOST_REMEMBERED:
            self._cancelled.popitem(last=False)
        if (place := self.places.get(request)) is not None:
            self.unsent.append((request, trace, place))
            self.flush()

    def flush(self) -> None:
        """Sends the cancels that find a lane and room in it. The offer of the lane may lie unread."""
        for _ in range(len(self.unsent)):
            request, trace, place = unsent = self.unsent.popleft()
            entry = self._routing.spec.routes[place.route].entry
            producer = self._entries.get(self._routing.instances[entry.actor][place.replica])
            if producer is None or not self._can_spare(producer):
                self.unsent.append(unsent)
                continue
            about = self._endpoint.identifier, place.route, request, 0, *trace
            head = 0, self._routing.number[entry], 0, *about, now_ns(), 0, 0, 0
            Payload(None, self._endpoint.pool).publish(producer, Kind.CANCEL, 0, head)

    def clear(self) -> None:
        """The caller ends."""
        for each in (self.places, self._cancelled, self.unsent):
            each.clear()
