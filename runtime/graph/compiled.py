"""A graph spec, compiled for the road: numbers of ports, edges by port, routes and who lies on them."""

from __future__ import annotations

from ..actor.fields import CallFields
from ..errors import UnknownPort
from ..spec import EdgeSpec, GraphSpec, HandlerSpec, PortRef
from ..spelling import did_you_mean
from .routes import Routes


class Routing:
    """The same in every process of a graph, since it is computed from the same spec."""

    def __init__(self, spec: GraphSpec) -> None:
        self.spec = spec
        self.ports = [PortRef(actor.name, port) for actor in spec.actors for port in actor.ports()]
        self.number = {port: number for number, port in enumerate(self.ports)}
        self.instances = {actor.name: actor.instances() for actor in spec.actors}
        self.actor_of = {instance: actor for actor, all_of_it in self.instances.items() for instance in all_of_it}
        self._routes = {str(route.entry): index for index, route in enumerate(spec.routes)}
        self._ways = Routes(spec.actors, spec.edges)
        self._leads: dict[tuple[int, PortRef], bool] = {}
        self._intakes: dict[int, tuple[CallFields, bool]] = {}

    def edges_from(self, port: PortRef) -> list[tuple[int, EdgeSpec]]:
        """The edges that leave by a port, with their numbers."""
        return [(number, edge) for number, edge in enumerate(self.spec.edges) if edge.source == port]

    def route(self, target: str, *, inside: bool) -> int:
        """The number of the route that enters at `target`. Clients (not `inside`) may use exposed ports only.

        Raises UnknownPort, with the ports there are.
        """
        found = self._routes.get(target)
        allowed = len(self.spec.routes) if inside else self.spec.exposed
        if found is not None and found < allowed:
            return found
        known = list(self._routes)[:allowed]
        hint = did_you_mean(target, known)
        if found is not None:
            raise UnknownPort(
                f"port {target!r} of graph {self.spec.name!r} is not exposed; add graph.expose(...) for it"
            )
        listed = ", ".join(known) or "none"
        raise UnknownPort(
            f"graph {self.spec.name!r} has no port {target!r} that can be called{hint}; there are: {listed}"
        )

    def entry(self, route: int) -> HandlerSpec:
        """The handler where a route begins."""
        entry = self.spec.routes[route].entry
        return self.spec.actor(entry.actor).handler(entry.port)

    def intake(self, route: int) -> tuple[CallFields, bool]:
        """What the entry of a route takes, and whether it is answered by a stream: some handler on the way yields."""
        known = self._intakes.get(route)
        if known is None:
            inputs, _ = self._ways.reached(self.spec.routes[route].entry)
            handlers = [self.spec.actor(each.actor).handler(each.port) for each in inputs]
            known = self._intakes[route] = (
                CallFields(handlers[0], inputs[0].actor),
                any(each.streams for each in handlers),
            )
        return known

    def streams(self, route: int) -> bool:
        """Whether a call of that route is answered by a stream."""
        return self.intake(route)[1]

    def leads_to_reply(self, route: int, port: PortRef) -> bool:
        """Whether what enters at `port` may become the answer of a call of that route; False on a side branch."""
        known = self._leads.get((route, port))
        if known is None:
            known = self._leads[route, port] = self.spec.routes[route].reply in self._ways.reached(port)[1]
        return known

    def actors_on(self, route: int) -> list[str]:
        """The actors that a call of that route can reach, the entry first."""
        inputs, _ = self._ways.reached(self.spec.routes[route].entry)
        return list(dict.fromkeys(each.actor for each in inputs))
