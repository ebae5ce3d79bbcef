"""By which ways an output of an actor goes on: along which edges, and whether it answers a call. No I/O."""

from __future__ import annotations

from ..graph.compiled import Routing
from ..message.header import Header
from ..spec import EdgeSpec, PortRef
from .work import REPLY_KEY, Work


class WaysOut:
    """Of one actor. `leaving` has, by output port, its number and the edges that leave by it, each with the number of
    the port at its end; `reply_ports`, by route, the port here that answers a call of that route.
    """

    def __init__(self, actor: str, routing: Routing) -> None:
        self._actor = actor
        self._routing = routing
        self.leaving: dict[str, tuple[int, list[tuple[int, EdgeSpec, int]]]] = {}
        for port in (each for each in routing.ports if each.actor == actor):
            ways = [(edge, spec, routing.number[spec.target]) for edge, spec in routing.edges_from(port)]
            self.leaving[port.port] = routing.number[port], ways
        self.reply_ports = [route.reply.port if route.reply.actor == actor else None for route in routing.spec.routes]
        self._leads: dict[tuple[int, str], bool] = {}
        self._awaited: dict[tuple[int, int], bool] = {}

    def leads_to_reply(self, route: int, port: str) -> bool:
        """Whether an input at a port of this actor may become the answer; False on a side branch."""
        known = self._leads.get((route, port))
        if known is None:
            known = self._leads[route, port] = self._routing.leads_to_reply(route, PortRef(self._actor, port))
        return known

    def deadline_along(self, edge: int, header: Header) -> int:
        """The deadline of a message that goes along an edge for a request. On a side branch there is none: the caller
        decides whether the answer came in time, and cancels the request if it did not.
        """
        if not header.deadline_ns:
            return 0
        known = self._awaited.get((header.route, edge))
        if known is None:
            target = self._routing.spec.edges[edge].target
            known = self._awaited[header.route, edge] = self._routing.leads_to_reply(header.route, target)
        return header.deadline_ns if known else 0

    def streams_answers_alone(self, work: Work) -> bool:
        """Whether an input becomes a stream, which nobody but the caller of its request gets."""
        handler = work.handler
        if not work.header.reply_to or handler is None or not handler.spec.streams:
            return False
        port = handler.spec.port
        return self.reply_ports[work.header.route] == port and not self.leaving[port][1]

    def ways(self, port: str, header: Header) -> list[int]:
        """By which ways an output of a port leaves, in the order in which it does."""
        _, edges = self.leaving[port]
        replies = header.reply_to and self.reply_ports[header.route] == port
        return ([REPLY_KEY] if replies else []) + [number for number, _, _ in edges]
