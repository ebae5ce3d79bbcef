"""The lanes of one caller to the actors where routes begin, opened at first use, and the choice among replicas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...shm.producer import Producer
from ..control.channel import OpenRoute
from ..graph.compiled import Routing
from ..graph.replicas import HASH, Choice, HashChoice, policy_of
from .endpoint import Endpoint


class Entries:
    """`lanes` has them by actor instance; `ways` has what `opened` gives, by route, of those that were opened since the
    last lane came. `leaves_room` says whether one of them takes a call. One thread at a time.
    """

    def __init__(self, endpoint: Endpoint, routing: Routing, leaves_room: Callable[[Producer], bool]) -> None:
        self.lanes: dict[str, Producer] = {}
        self._endpoint = endpoint
        self._routing = routing
        self._leaves_room = leaves_room
        self.ways: dict[int, tuple[list[Producer], int]] = {}
        self._open_routes: set[int] = set()
        self._choices: dict[str, Choice] = {}  # by actor
        self._keys: dict[int, HashChoice] = {}  # by route

    def add(self, instance: str, lane: Producer) -> None:
        """A lane to an actor instance has come."""
        self.lanes[instance] = lane
        self.ways.clear()

    def opened(self, route: int) -> tuple[list[Producer], int]:
        """The lanes that lead to the entry of a route, and the number of its port. Asks for them, the first time."""
        if route not in self._open_routes:
            self._endpoint.ask(OpenRoute(route))
            self._open_routes.add(route)
        return self.ways.get(route) or self._way(route)

    def _way(self, route: int) -> tuple[list[Producer], int]:
        entry = self._routing.spec.routes[route].entry
        lanes = [self.lanes[each] for each in self._routing.instances[entry.actor] if each in self.lanes]
        self.ways[route] = way = lanes, self._routing.number[entry]
        return way

    def choose(self, route: int, lanes: list[Producer], fields: dict[str, Any]) -> Producer:
        """One of several lanes: there are replicas. Raises MessageError where a field chooses one, and cannot."""
        actor = self._routing.spec.actor(self._routing.spec.routes[route].entry.actor)
        policy = policy_of(actor.routing)
        if policy.kind == HASH:
            if route not in self._keys:
                self._keys[route] = HashChoice(actor.name, self._routing.entry(route), policy.field, actor.replicas)
            return lanes[self._keys[route].of_fields(fields)]
        choice = self._choices.setdefault(actor.name, Choice(policy))
        lane = choice.pick(lanes, self._leaves_room)
        choice.went(lanes, lane)
        return lane

    def candidates(self, route: int, fields: dict[str, Any]) -> list[Producer]:
        """The lanes by which a message may go that waits for room, the best first: one where a field chooses it.

        Raises MessageError where a field chooses, and cannot.
        """
        lanes, _ = self.opened(route)
        if len(lanes) == 1:
            return lanes
        best = self.choose(route, lanes, fields)
        return [best] if route in self._keys else [best, *(lane for lane in lanes if lane is not best)]

    def clear(self) -> None:
        """The caller ends."""
        self.lanes.clear()
        self.ways.clear()
