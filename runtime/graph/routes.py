"""Where messages may go: the ports that are reachable from an input along the edges. No I/O."""

from __future__ import annotations

from collections.abc import Sequence

from ..spec import ActorSpec, EdgeSpec, PortRef, RouteSpec


class Routes:
    """The ways through one graph: its actors, and the edges between them."""

    def __init__(self, actors: Sequence[ActorSpec], edges: Sequence[EdgeSpec]) -> None:
        self._actors = {each.name: each for each in actors}
        self._targets: dict[PortRef, list[PortRef]] = {}
        for edge in edges:
            self._targets.setdefault(edge.source, []).append(edge.target)

    def sinks(self, entry: PortRef) -> list[PortRef]:
        """The output ports at which a call of `entry` may end, in the order in which they are reached."""
        return [each for each in self.reached(entry, every_output=False)[1] if each not in self._targets]

    def may_reply(self, entry: PortRef, reply: PortRef) -> bool:
        """Whether `reply` may be named as the answer: reachable, and nothing is connected to it."""
        return reply not in self._targets and reply in self.reached(entry)[1]

    def reached(self, entry: PortRef, *, every_output: bool = True) -> tuple[list[PortRef], list[PortRef]]:
        """The inputs, `entry` first, and the outputs that a message may come to that enters at `entry`. Without
        `every_output` those declared outputs are left out that nobody is connected to, beside a handler's own answer.
        """
        entered: dict[PortRef, None] = {entry: None}
        left: dict[PortRef, None] = {}
        waiting = [entry]
        while waiting:
            for output in self._leaving(waiting.pop(0), every_output):
                left[output] = None
                fresh = [each for each in self._targets.get(output, ()) if each not in entered]
                entered.update(dict.fromkeys(fresh))
                waiting.extend(fresh)
        return list(entered), list(left)

    def _leaving(self, entry: PortRef, every_output: bool) -> list[PortRef]:
        """The outputs by which a message that enters at `entry` may leave.

        A handler that replies by its own port may emit as well, but what leaves by a declared output that nobody is
        connected to is then no answer unless `reply=` says so.
        """
        actor = self._actors[entry.actor]
        declared = [PortRef(entry.actor, each.port) for each in actor.outputs]
        if not any(each.port == entry.port and each.replies for each in actor.handlers):
            return declared
        return [entry, *(each for each in declared if every_output or each in self._targets)]

    def internal(self, exposed: Sequence[RouteSpec]) -> list[RouteSpec]:
        """Routes of all ports that are not exposed and whose sink is plain: for calls from inside."""
        known = {each.entry for each in exposed}
        every = [PortRef(actor.name, each.port) for actor in self._actors.values() for each in actor.handlers]
        sinks = {entry: self.sinks(entry) for entry in every if entry not in known}
        return [RouteSpec(entry, ends[0]) for entry, ends in sinks.items() if len(ends) == 1]
