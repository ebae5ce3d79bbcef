"""Groups of supervision while a graph is being written: which actors are restarted together, and how often."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

from ..errors import GraphError
from ..spec import INTENSITY, WITHIN_S, GroupSpec, Strategy
from ..spelling import did_you_mean
from .node import NAME, NAME_RULE, Node, Owner

STRATEGIES: tuple[str, ...] = get_args(Strategy)


@dataclass(frozen=True, eq=False)
class Group:
    """A group of a graph, as `graph.supervise` gives it; may be a member of another."""

    graph: Owner
    name: str

    def __str__(self) -> str:
        return self.name


class Groups:
    """All groups of one graph."""

    def __init__(self, graph: Owner) -> None:
        self._graph = graph
        self._all: dict[str, GroupSpec] = {}

    def __iter__(self) -> Iterator[GroupSpec]:
        return iter(self._all.values())

    def add(
        self,
        name: str,
        members: Iterable[Node | Group],
        strategy: Strategy = "one_for_one",
        intensity: int = INTENSITY,
        within_s: float = WITHIN_S,
    ) -> Group:
        """Raises GraphError for members that are in a group already, and for what cannot be meant."""
        names = tuple(self._member(name, each) for each in _listed(name, members))
        problems = [*self._name_problems(name, names), *_setting_problems(name, strategy, intensity, within_s)]
        if problems:
            raise GraphError(*problems)
        self._all[name] = GroupSpec(name, names, strategy, intensity, float(within_s))
        return Group(self._graph, name)

    def _member(self, group: str, member: object) -> str:
        if not isinstance(member, (Node, Group)):
            raise GraphError(f"group '{group}': expected nodes and groups of this graph, got {member!r}")
        graph = member._draft.graph if isinstance(member, Node) else member.graph
        if graph is not self._graph:
            raise GraphError(f"group '{group}': '{member}' belongs to graph '{graph.name}', not to this one")
        return str(member)

    def _name_problems(self, name: str, members: Sequence[str]) -> Iterator[str]:
        if not isinstance(name, str) or not NAME.fullmatch(name):
            yield f"group name {name!r} must consist of {NAME_RULE}"
        elif name in self._all:
            yield f"there is a group '{name}' already; give this one another name"
        if not members:
            yield f"group '{name}' has no members"
        for each in dict.fromkeys(members):
            taken = next((group.name for group in self if each in group.members), None)
            if taken is not None:
                yield f"'{each}' is in group '{taken}' already, so it cannot be in '{name}' too"
            elif members.count(each) > 1:
                yield f"'{each}' is named twice in group '{name}'"

    def problems(self, actors: Sequence[tuple[str, str | None]]) -> Iterator[str]:
        """What does not fit the actors, given by name and worker: names that are taken, workers that would be split."""
        homes = {actor: next((each.name for each in self if actor in each.members), None) for actor, _ in actors}
        names = {actor: "an actor" for actor, _ in actors} | {worker: "a worker" for _, worker in actors if worker}
        for group in self:
            if group.name in names:
                yield f"group '{group.name}' has the name of {names[group.name]}; give it another"
        seen: dict[str, str] = {}
        for actor, worker in actors:
            other = seen.setdefault(worker, actor) if worker else actor
            if homes[other] != homes[actor]:
                apart = f"{_at(homes, other)} and {_at(homes, actor)}"
                yield (
                    f"'{other}' and '{actor}' share worker '{worker}', so they live and die together, but {apart}; "
                    "put both into one group, or give them workers of their own"
                )


def _at(homes: Mapping[str, str | None], actor: str) -> str:
    return f"'{actor}' is in group '{homes[actor]}'" if homes[actor] else f"'{actor}' is in none"


def _listed(name: str, members: object) -> Sequence[Node | Group]:
    if isinstance(members, (Node, Group)):
        return [members]
    if not isinstance(members, Iterable):
        raise GraphError(f"group '{name}' takes a list of nodes and groups, got {members!r}")
    return list(members)


def _setting_problems(name: str, strategy: str, intensity: int, within_s: float) -> Iterator[str]:
    if strategy not in STRATEGIES:
        hint = did_you_mean(str(strategy), STRATEGIES)
        yield f"group '{name}': strategy={strategy!r} must be one of {', '.join(STRATEGIES)}{hint}"
    if isinstance(intensity, bool) or not isinstance(intensity, int) or intensity < 0:
        yield f"group '{name}': intensity={intensity!r} must be a whole number of at least 0"
    if isinstance(within_s, bool) or not isinstance(within_s, (int, float)) or not within_s > 0:
        yield f"group '{name}': within_s={within_s!r} must be a number of seconds above 0"
