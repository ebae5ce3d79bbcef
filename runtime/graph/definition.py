"""Actors, edges and what clients may call: written down in Python, checked, and turned into a `GraphSpec`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, get_args

from ..errors import GraphError
from ..spec import USUAL_CALLS, ActorSpec, EdgeSpec, GraphSpec, PortRef, Restart, RouteSpec, Strategy, WhenFull
from ..spelling import did_you_mean
from .cycles import cycles, deadlock
from .edge_types import why_no_edge
from .groups import Group, Groups
from .limits import limit_problems
from .mermaid import mermaid
from .node import NAME, NAME_RULE, ActorDraft, Code, Node, Port, draft_of, setting_problems
from .replicas import routing_problems
from .routes import Routes

MAX_CAPACITY = 65_536  # records of one lane: 16 MiB of shared memory
POLICIES: tuple[str, ...] = get_args(WhenFull)


class Definition:
    """What a graph is: its actors, edges, groups, and what clients may call, each `client_calls` calls and streams at a
    time.
    """

    def __init__(self, name: str, *, client_calls: int = USUAL_CALLS) -> None:
        self.name = name
        self.client_calls = client_calls
        self._drafts: dict[str, ActorDraft] = {}
        self._edges: list[EdgeSpec] = []
        self._bounded: list[EdgeSpec] = []
        self._exposed: list[tuple[PortRef, PortRef | None]] = []  # entry, and the answer where it was named
        self._groups = Groups(self)

    def __repr__(self) -> str:
        return f"Graph({self.name!r}: {', '.join(self._drafts) or 'no actors'})"

    def add(
        self,
        code: Code,
        /,
        *,
        name: str | None = None,
        replicas: int = 1,
        routing: str = "least_loaded",
        cores: int = 0,
        weight: int = 1,
        restart: Restart = "permanent",
        worker: str | None = None,
        concurrency: int | None = None,
        calls: int = USUAL_CALLS,
        hang_after_s: float = 30.0,
        start_timeout_s: float = 120.0,
        max_attempts: int = 3,
        memory_bytes: int = 1 << 30,
        huge_pages: bool = False,
        **arguments: Any,
    ) -> Node:
        """Adds an actor: a class derived from Actor, constructed with `arguments` in its worker, or a function.

        - `name`: of the actor; the name of the class or function in lower case, if not given.
        - `replicas`: instances, each in a worker process of its own. `routing`: which of them gets a message:
          least_loaded, round_robin, or "hash:field", by which equal values of that field go to one of them.
        - `cores`: whole cores for each instance alone; 0 is a share of one. `worker`: actors that name the same one
          share its process, and there `weight` is the share of its time that this one may have.
        - `concurrency`: inputs in flight; 1 where all handlers are plain, else 64. `calls`: calls and streams of its
          own that may be in flight at other actors.
        - `restart`: permanent starts a process that ended again, always; transient after a failure; temporary never.
        - `start_timeout_s`: to be ready, `on_start` included; `hang_after_s`: without a sign of life. A process that
          takes longer is killed, and restarted as `restart` says.
        - `max_attempts`: processes that an input may be handled in before it becomes a dead letter.
        - `memory_bytes`: that its slabs may grow to. `huge_pages`: they lie in huge pages, where the kernel gives them.

        Raises GraphError at once for a name that is taken and arguments that do not fit.
        """
        settings = {
            "replicas": replicas,
            "routing": routing,
            "cores": cores,
            "weight": weight,
            "restart": restart,
            "worker": worker,
            "concurrency": concurrency,
            "calls": calls,
            "hang_after_s": hang_after_s,
            "start_timeout_s": start_timeout_s,
            "max_attempts": max_attempts,
            "memory_bytes": memory_bytes,
            "huge_pages": huge_pages,
        }
        node = Node(draft_of(self, code, name, settings, arguments))
        if str(node) in self._drafts:
            raise GraphError(f"graph '{self.name}' has an actor '{node}' already; give this one another with name=")
        self._drafts[str(node)] = node._draft
        return node

    def connect(
        self,
        source: Node | Port,
        target: Node | Port,
        *,
        capacity: int = 64,
        when_full: WhenFull = "block",
        bounded: bool = False,
    ) -> None:
        """Lets what leaves by the output `source` enter at the input `target`.

        A bare node stands for its port where it has only one in that direction. `capacity` counts messages; `when_full`
        is block, reject, drop_newest or drop_oldest. `bounded` is for edges that lead in a circle: it says that never
        more messages than the capacity go round at once, so blocking edges cannot make their actors wait for each other
        for ever. Raises GraphError for what is no output or no input of this graph.
        """
        edge = EdgeSpec(self._resolved(source, "output"), self._resolved(target, "input"), capacity, when_full)
        if any((each.source, each.target) == (edge.source, edge.target) for each in self._edges):
            raise GraphError(f"{edge.source} and {edge.target} are connected already")
        self._edges.append(edge)
        if bounded:
            self._bounded.append(edge)

    def expose(self, *ports: Node | Port, reply: Node | Port | None = None) -> None:
        """Lets clients call these inputs; `reply` says which output answers where several could."""
        answer = None if reply is None else self._resolved(reply, "output")
        self._exposed.extend((self._resolved(each, "input"), answer) for each in ports)

    def supervise(
        self,
        name: str,
        members: Iterable[Node | Group],
        *,
        strategy: Strategy = "one_for_one",
        intensity: int = 10,
        within_s: float = 30.0,
    ) -> Group:
        """Supervises nodes and groups together: when one fails, `strategy` says who is restarted with it.

        "one_for_one": nobody; "rest_for_one": those named after it; "one_for_all": all. More than `intensity` restarts
        within `within_s` are a failure of the group: the one that it is in restarts it, and where it is in none the
        graph ends. Raises GraphError for what cannot be meant.
        """
        return self._groups.add(name, members, strategy, intensity, within_s)

    def _resolved(self, place: Node | Port, direction: str) -> PortRef:
        if not isinstance(place, (Node, Port)):
            raise GraphError(f"expected a node of this graph or one of its ports, got {place!r}")
        draft = place._draft if isinstance(place, Node) else place.draft
        name = draft.spec.name
        if draft.graph is not self:
            raise GraphError(f"actor '{name}' belongs to graph '{draft.graph.name}', not to '{self.name}'")
        ports = draft.inputs if direction == "input" else draft.leaving
        listed = ", ".join(f"{name}.{each}" for each in ports) or "none"
        if isinstance(place, Port):
            if place.ref.port not in ports:
                raise GraphError(f"{place} is no {direction}; the {direction}s of '{name}' are {listed}")
            return place.ref
        if len(ports) != 1:
            raise GraphError(f"'{name}' has {len(ports)} {direction}s, so say which: {listed}")
        return PortRef(name, ports[0])

    def validate(self) -> GraphSpec:
        """The graph as plain data. Raises GraphError with all problems, each naming the actors or both ends."""
        return self._validated(travels=True)

    def _validated(self, *, travels: bool) -> GraphSpec:
        problems = [*self._name_problems(), *self._edge_problems(), *self._exposure_problems()]
        actors = []
        for draft in self._drafts.values():
            try:
                actors.append(draft.travelling() if travels else draft.spec)
            except GraphError as error:
                problems.extend(error.problems)
        if problems:
            raise GraphError(*problems)
        return self._assembled(actors)

    def spec(self) -> GraphSpec:
        """The same as `validate`."""
        return self.validate()

    def _assembled(self, actors: list[ActorSpec]) -> GraphSpec:
        routes = self._routes()
        exposed = [RouteSpec(entry, reply or routes.sinks(entry)[0]) for entry, reply in self._exposed]
        every = (*exposed, *routes.internal(exposed))
        return GraphSpec(
            self.name, tuple(actors), tuple(self._edges), every, len(exposed), tuple(self._groups), self.client_calls
        )

    def _routes(self) -> Routes:
        return Routes([each.spec for each in self._drafts.values()], self._edges)

    def _name_problems(self) -> Iterable[str]:
        if not isinstance(self.name, str) or not NAME.fullmatch(self.name):
            yield f"graph name {self.name!r} must consist of {NAME_RULE}"
        if not self._drafts:
            yield f"graph '{self.name}' has no actors; add one with graph.add"
        for draft in self._drafts.values():
            yield from setting_problems(draft.spec)
            yield from routing_problems(draft.spec, draft.code)
        yield from limit_problems([each.spec for each in self._drafts.values()], self.client_calls)
        yield from self._groups.problems([(name, draft.spec.worker) for name, draft in self._drafts.items()])

    def _edge_problems(self) -> Iterable[str]:
        for edge in self._edges:
            capacity = edge.capacity
            if isinstance(capacity, bool) or not isinstance(capacity, int) or not 1 <= capacity <= MAX_CAPACITY:
                yield f"{_ends(edge)}: capacity={capacity!r} must be a whole number from 1 to {MAX_CAPACITY}"
            if edge.when_full not in POLICIES:
                hint = did_you_mean(str(edge.when_full), POLICIES)
                yield f"{_ends(edge)}: when_full={edge.when_full!r} must be one of {', '.join(POLICIES)}{hint}"
            source = self._drafts[edge.source.actor].spec.output_type(edge.source.port)
            why = why_no_edge(edge, source, self._drafts[edge.target.actor].spec.handler(edge.target.port))
            if why is not None:
                yield f"{_ends(edge)}: {why}"
        waiting = [each for each in self._edges if each.when_full == "block" and each not in self._bounded]
        yield from map(deadlock, cycles(waiting))

    def _exposure_problems(self) -> Iterable[str]:
        routes = self._routes()
        seen = set()
        for entry, reply in self._exposed:
            if entry in seen:
                yield f"{entry} is exposed twice; once is enough"
            seen.add(entry)
            why = _no_answer(routes, entry) if reply is None else _no_reply(routes, entry, reply)
            if why is not None:
                yield why

    def mermaid(self) -> str:
        """The graph as a Mermaid flowchart. Raises GraphError for one that is not valid."""
        return mermaid(self.validate())


def _ends(edge: EdgeSpec) -> str:
    return f"{edge.source} → {edge.target}"


def _no_answer(routes: Routes, entry: PortRef) -> str | None:
    sinks = routes.sinks(entry)
    if len(sinks) == 1:
        return None
    if not sinks:
        return f"{entry} is exposed, but no call of it would end: its edges only lead in a circle"
    listed = " and ".join(map(str, sinks))
    return f"{entry} is exposed, but its calls could end at {listed}; say which: expose(..., reply={sinks[0]})"


def _no_reply(routes: Routes, entry: PortRef, reply: PortRef) -> str | None:
    if routes.may_reply(entry, reply):
        return None
    sinks = ", ".join(map(str, routes.sinks(entry))) or "none"
    return f"{entry} is exposed with reply={reply}, which its calls do not end at; they end at {sinks}"
