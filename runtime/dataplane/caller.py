"""Outgoing calls of one process: numbers them, finds a way in, and hands what comes back to whoever waits."""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable
from typing import Any

from ...shm.bell import now_ns
from ...shm.consumer import Consumer
from ...shm.lane import STREAM_SLOTS
from ...shm.producer import Producer
from ..control.asks import OpenRoute
from ..control.offers import LaneOffer
from ..errors import Cancelled, MessageError, Overloaded, SlabwireError, error_from_wire, untouched
from ..graph.compiled import Routing
from ..graph.replicas import HASH, Choice, Keys, policy_of
from ..message.capacities import MOST_CALLS
from ..message.fast_path import encode_and_publish
from ..message.header import Kind, read_header
from ..message.keyed import KEYED, with_key
from ..message.payload import Payload
from .endpoint import Endpoint

_LATEST_NS = (1 << 63) - 1
_DATA = int(Kind.DATA)
_KINDS = {int(each): each for each in Kind}  # to call an enumeration takes 0.3 us
# The upper half of a request's number tells the processes of one endpoint apart; behind so many it begins anew.
_INCARNATIONS = 1 << 31


class Pending:
    """One call in flight. `arrived` holds (kind, value or error) of what has come back; `notify` says so."""

    __slots__ = ("_items", "_lane", "arrived", "entry", "notify", "request", "route", "trace_high", "trace_low")

    def __init__(
        self, request: int, route: int, entry: Producer, trace: tuple[int, int], notify: Callable[[], None]
    ) -> None:
        self.request = request
        self.route = route
        self.entry = entry
        self.trace_high, self.trace_low = trace
        self.notify = notify
        self.arrived: deque[tuple[Kind, Any]] = deque()
        self._lane: Consumer | None = None
        self._items = 0

    def came_by(self, lane: Consumer) -> None:
        """Notes who answers."""
        self._lane = lane

    def next_kind(self) -> Kind:
        """Of what kind the oldest of what has arrived is."""
        return self.arrived[0][0]

    def take(self) -> tuple[Kind, Any]:
        """The oldest of what has arrived. Of a stream this many more may be sent: who answers is told."""
        kind, value = self.arrived.popleft()
        if kind == Kind.ITEM and self._lane is not None:
            self._items += 1
            self._lane.note_read(self.request, self._items)
        return kind, value


class Caller:
    """Built over an endpoint. One thread at a time. `cause` gives the lane and the sequence of the input whose handler
    calls; without one this is a client.

    Request numbers of one process never meet those of its predecessors: the upper half grows with time.
    """

    def __init__(
        self, endpoint: Endpoint, routing: Routing, cause: Callable[[], tuple[int, int]] | None = None
    ) -> None:
        self._endpoint = endpoint
        self._routing = routing
        self._cause = cause
        self._entries: dict[str, Producer] = {}
        self._lanes: dict[int, list[Producer]] = {}  # by route, of `_entries`
        self._targets: dict[int, int] = {}  # by route, the number of its port
        self.replies: list[Consumer] = []
        self._open_routes: set[int] = set()
        self._pending: dict[int, Pending] = {}
        self._aside: set[int] = set()  # of these, the calls beside the others
        self._last_request = _incarnation() << 32
        # Where the graph runs in this process: gives an error the exception that it was made from.
        self.explain: Callable[[tuple[int, int], SlabwireError], None] | None = None
        self._choices: dict[str, Choice] = {}  # by actor
        self._keys: dict[int, Keys] = {}  # by route

    def lane_opened(self, offer: LaneOffer, end: Producer | Consumer) -> None:
        """A lane to an entry, or from somebody who answers."""
        if isinstance(end, Producer):
            self._entries[offer.target] = end
            self._lanes.clear()
        else:
            self.replies.append(end)

    def begin(
        self,
        target: str,
        fields: dict[str, Any],
        *,
        deadline_ns: int = 0,
        trace: tuple[int, int] = (0, 0),
        notify: Callable[[], None],
        key: str = "",
        aside: bool = False,
    ) -> Pending:
        """Sends a request, with the idempotency key that its handler is told, if it has one. Raises UnknownPort,
        MessageError, Overloaded, or Disconnected. `aside`: a call for one answer that is not among the MOST_CALLS.
        """
        route = self._routing.route(target, inside=self._cause is not None)
        if not aside and len(self._pending) - len(self._aside) >= MOST_CALLS:
            raise untouched(
                Overloaded(f"{MOST_CALLS} calls are in flight already; wait for some, or use a second client")
            )
        if route not in self._open_routes:
            self._endpoint.ask(OpenRoute(route))
            self._open_routes.add(route)
        entry = self._entry(route, fields)
        if not self._leaves_room(entry):
            raise self._overloaded(target, entry)
        # Before it is published: an exception right behind that must not give its number to the next request.
        request = self._last_request = self._last_request + 1 if aside else self._next_request()
        pending = Pending(request, route, entry, trace if trace[0] or trace[1] else _new_trace(), notify)
        if not aside:
            self._endpoint.open_calls.begin(request)
        flags = 0
        if key:
            fields, flags = with_key(fields, key), KEYED
        if not encode_and_publish(
            fields, self._endpoint.pool, entry, _DATA, flags, self._head(pending, deadline_ns), is_fields=True
        ):
            parcel = Payload(fields, self._endpoint.pool, is_fields=True)
            if not parcel.can_go(entry):
                raise self._overloaded(target, entry)
            self._write(pending, Kind.DATA, parcel, deadline_ns, flags)
        self._pending[request] = pending
        if aside:
            self._aside.add(request)
        return pending

    def _overloaded(self, target: str, entry: Producer) -> SlabwireError:
        text = f"{target!r} has not read the last {entry.waiting} requests of this caller; try again later"
        return untouched(Overloaded(text))

    def _leaves_room(self, entry: Producer) -> bool:
        """Whether one more request lets every call in flight by this entry, itself included, find room for its cancel.

        The record at the front may wait for a place that nothing frees but the cancel of what has it.
        """
        wanted = 2 + (sum(pending.entry is entry for pending in self._pending.values()) if self._pending else 0)
        return entry.free_records(wanted) >= wanted

    def _next_request(self) -> int:
        """A number whose slot no other call in flight has."""
        number = self._last_request + 1
        if not self._pending:
            return number
        busy = {request % STREAM_SLOTS for request in self._pending.keys() - self._aside}
        while number % STREAM_SLOTS in busy:
            number += 1
        return number

    def _entry(self, route: int, fields: dict[str, Any]) -> Producer:
        """The lane that a request takes. Raises MessageError where a field chooses it, and cannot."""
        lanes = self._lanes.get(route)
        if lanes is None:
            actor = self._routing.spec.routes[route].entry.actor
            lanes = [self._entries[each] for each in self._routing.instances[actor] if each in self._entries]
            self._lanes[route] = lanes
        if len(lanes) == 1:
            return lanes[0]
        return self._entry_of(route, lanes, fields)

    def _entry_of(self, route: int, lanes: list[Producer], fields: dict[str, Any]) -> Producer:
        """One of several: there are replicas."""
        actor = self._routing.spec.actor(self._routing.spec.routes[route].entry.actor)
        policy = policy_of(actor.routing)
        if policy.kind == HASH:
            if route not in self._keys:
                self._keys[route] = Keys(actor.name, self._routing.entry(route), policy.field, actor.replicas)
            return lanes[self._keys[route].of_fields(fields)]
        choice = self._choices.setdefault(actor.name, Choice(policy))
        lane = choice.pick(lanes, self._leaves_room)
        choice.went(lanes, lane)
        return lane

    def _head(self, pending: Pending, deadline_ns: int) -> tuple[int, ...]:
        """The numbers of a request's header."""
        target, caller = self._target(pending.route), self._endpoint.identifier
        traced = pending.trace_high, pending.trace_low
        lane, sequence = self._cause() if self._cause is not None else (0, 0)
        about = caller, pending.route, pending.request, deadline_ns, *traced
        return 0, target, 0, *about, now_ns(), lane, 0, sequence

    def _target(self, route: int) -> int:
        known = self._targets.get(route)
        if known is None:
            known = self._targets[route] = self._routing.number[self._routing.spec.routes[route].entry]
        return known

    def _write(self, pending: Pending, kind: Kind, parcel: Payload, deadline_ns: int, flags: int = 0) -> None:
        parcel.publish(pending.entry, kind, flags, self._head(pending, deadline_ns))
        parcel.close()

    def finish(self, pending: Pending) -> None:
        """The caller has got all that it wants: from now on nobody can cancel what the call has set going."""
        request = pending.request
        if self._pending.pop(request, None) is None:
            return
        if request in self._aside:  # it has no slot in which others see it; it is short in any case
            self._aside.discard(request)
        else:
            self._endpoint.open_calls.end(request)

    def cancel(self, pending: Pending) -> None:
        """The caller has lost interest: tells the graph, if the answer has not come. There is room: see `begin`."""
        if pending.request not in self._pending:
            return
        if not pending.entry.segment.is_mapped:  # this is a child of the process that called
            del self._pending[pending.request]
            return
        self._write(pending, Kind.CANCEL, Payload(None, self._endpoint.pool), 0)
        self.finish(pending)

    def fail_all(self, error: SlabwireError) -> None:
        """Every call in flight ends with the error, and is cancelled: the client closes, or the graph is gone."""
        for pending in list(self._pending.values()):
            self._give_up(pending, error)

    def _give_up(self, pending: Pending, error: SlabwireError) -> None:
        self.cancel(pending)
        self._arrive(pending, Kind.ERROR, error)

    def pump(self) -> bool:
        """Takes in all answers that have come; True if there were any."""
        came = False
        for lane in self.replies:
            while lane.available():
                self.take(lane)
                came = True
        return came

    def take(self, lane: Consumer) -> None:
        """Takes in the next record of a lane that has one."""
        header = read_header(lane.segment.bytes, lane.offset())
        pending = self._pending.get(header.request)
        try:
            if pending is None:
                self._endpoint.let_go(lane, header, lane.cursor)  # nobody waits any more
            else:
                value = self._endpoint.open(lane, header, lane.cursor)
                kind = _KINDS[header.kind]
                pending.came_by(lane)
                self._arrive(pending, kind, self._error(pending, value) if kind == Kind.ERROR else value)
        except SlabwireError as error:
            lane.refuse()
            if pending is not None and header.kind == Kind.ITEM:
                self._give_up(pending, error)  # more would come
            elif pending is not None:
                self._arrive(pending, Kind.ERROR, error)
        lane.commit()

    def _error(self, pending: Pending, value: Any) -> SlabwireError:
        error = error_from_wire(*value)
        if self.explain is not None:
            self.explain((self._endpoint.identifier, pending.request), error)
        return error

    def _arrive(self, pending: Pending, kind: Kind, value: Any) -> None:
        pending.arrived.append((kind, value))
        if kind != Kind.ITEM:
            self.finish(pending)
        pending.notify()

    def close(self) -> None:
        """Cancels what is in flight and lets go of all lanes."""
        for pending in list(self._pending.values()):
            self.cancel(pending)
        self._entries.clear()
        self._lanes.clear()
        self.replies.clear()
        self._pending.clear()

    @property
    def in_flight(self) -> int:
        return len(self._pending)

    def has_news(self) -> bool:
        """Whether an answer lies unread."""
        for lane in self.replies:  # noqa: SIM110 - `any` of a generator costs more than the look itself
            if lane.available():
                return True
        return False


def _incarnation() -> int:
    """A number, higher for every later process: in steps of 17 ms, which is less than one takes to start."""
    return (now_ns() >> 24) % _INCARNATIONS


def _new_trace() -> tuple[int, int]:
    """A trace id for a request that brings none: 128 random bits, in halves."""
    return random.getrandbits(64), random.getrandbits(64)


def deadline_of(timeout_s: float | None) -> int:
    """The deadline, on CLOCK_MONOTONIC in nanoseconds, of a call that may take `timeout_s`; 0 for none.

    Raises MessageError for what is no time.
    """
    if timeout_s is None or timeout_s == math.inf:
        return 0
    if isinstance(timeout_s, str) or not timeout_s >= 0:
        raise MessageError(f"timeout_s is {timeout_s!r}; it must be a number of seconds, or None to wait for ever")
    return min(now_ns() + int(timeout_s * 1e9), _LATEST_NS)


def result_of(kind: Kind, value: Any) -> Any:
    """The value that came back. Raises the error that did."""
    try:
        if kind == Kind.ERROR:
            raise value if isinstance(value, SlabwireError) else Cancelled(str(value))
        return value
    finally:
        del value  # an error that its own frame held would keep all frames above alive, and the arrays in them
