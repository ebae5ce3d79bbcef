"""Who sits on which physical core: the arithmetic behind a plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..host.topology import Core


@dataclass(frozen=True)
class Team:
    """The actor instances that share one worker process. `actors` are the names their edges use."""

    name: str
    instances: tuple[str, ...]
    actors: tuple[str, ...]
    asked: int  # whole cores
    weight: int


@dataclass
class Seats:
    """What was decided so far. Teams are known by their index; `owned` are the cores that somebody asked for."""

    cores: Sequence[Core]
    bonds: list[dict[int, int]]
    cores_of: list[list[Core]]
    owned: set[int] = field(default_factory=set)
    load: dict[int, float] = field(default_factory=dict)
    present: dict[int, list[int]] = field(default_factory=dict)

    def take(self, index: int, cores: Sequence[Core], weight: int) -> None:
        self.cores_of[index] = sorted(cores, key=lambda core: core.number)
        for core in cores:
            self.load[core.number] = self.load.get(core.number, 0.0) + weight / len(core.cpus)
            self.present.setdefault(core.number, []).append(index)

    def free(self) -> list[Core]:
        return [core for core in self.cores if core.number not in self.load]

    def by_core(self) -> list[tuple[Core, list[int]]]:
        """Each used core with the teams on it in the order in which they sat down, so that an owner is the first."""
        return [(core, self.present[core.number]) for core in self.cores if core.number in self.present]

    def near(self, index: int) -> list[int]:
        """The neighbours by edges that share an L3 with a team."""
        mine = {core.l3 for core in self.cores_of[index]}
        return [other for other in sorted(self.bonds[index]) if any(core.l3 in mine for core in self.cores_of[other])]

    def pull(self, index: int, pool: Sequence[Core], level: str) -> int:
        """How many edges of a team lead to teams that sit at the same L2, L3 or node as `pool`."""
        here = {getattr(core, level) for core in pool}
        return sum(
            edges
            for other, edges in self.bonds[index].items()
            if any(getattr(core, level) in here for core in self.cores_of[other])
        )


def grants(asked: Sequence[int], budget: int) -> list[int]:
    """How many whole cores each team gets of `budget`: what it asked for, or a fair part of it.

    Everybody who asks gets one (they share if there are fewer than that); each further one goes to the team
    that has the smallest part of what it asked for.
    """
    if sum(asked) <= budget:
        return list(asked)
    granted = [min(1, each) for each in asked]
    for _ in range(budget - sum(granted)):
        wanting = [index for index, each in enumerate(asked) if granted[index] < each]
        granted[min(wanting, key=lambda index: (granted[index] / asked[index], index))] += 1
    return granted


def seat(teams: Sequence[Team], granted: Sequence[int], bonds: list[dict[int, int]], cores: Sequence[Core]) -> Seats:
    """Gives every team its cores: those that asked first, then who has most neighbours among those that sit."""
    seats = Seats(cores, bonds, [[] for _ in teams])
    chains = _chains(bonds)
    missing = {index: sum(max(1, granted[other]) for other in chain) for chain in chains for index in chain}
    asking = [index for chain in chains for index in sorted(chain, key=lambda each: -granted[each]) if granted[index]]
    unasking = {index for chain in chains for index in chain if not granted[index]}
    for index in asking:
        _seat_one(seats, index, granted[index], missing[index], teams[index].weight)
        seats.owned.update(core.number for core in seats.cores_of[index])
    while unasking:
        index = max(unasking, key=lambda each: (_ties(seats, each), -each))
        unasking.remove(index)
        _seat_one(seats, index, 1, missing[index], teams[index].weight)
    return seats


def _ties(seats: Seats, index: int) -> int:
    """How many edges lead from a team to those that sit already: who has most is seated next, beside them."""
    return sum(edges for other, edges in seats.bonds[index].items() if seats.cores_of[other])


def _chains(bonds: list[dict[int, int]]) -> list[list[int]]:
    """Teams that edges connect, each chain breadth first from its first team."""
    chains: list[list[int]] = []
    seen: set[int] = set()
    for start in range(len(bonds)):
        if start in seen:
            continue
        chain = [start]
        seen.add(start)
        for index in chain:  # grows while it is walked
            fresh = [other for other in sorted(bonds[index]) if other not in seen]
            seen.update(fresh)
            chain += fresh
        chains.append(chain)
    return chains


def _seat_one(seats: Seats, index: int, count: int, room: int, weight: int) -> None:
    free = seats.free()
    chosen = _closest(seats, index, free, count, room) if free else [_least_loaded(seats, index)]
    seats.take(index, chosen, weight)


def _closest(seats: Seats, index: int, free: list[Core], count: int, room: int) -> list[Core]:
    """Free cores of one kind and L3 if there are enough, else of one node, else of as few L3s as possible.

    Only where neither kind has enough fast and slow ones are mixed: the others would wait for the slowest thread.
    """
    for levels in (("efficient", "l3"), ("efficient", "node"), ("efficient",), ("l3",), ("node",)):
        pools: dict[tuple[int, ...], list[Core]] = {}
        for core in free:
            pools.setdefault(tuple(getattr(core, level) for level in levels), []).append(core)
        fitting = [pool for pool in pools.values() if len(pool) >= count]
        if fitting:
            best = max(fitting, key=lambda pool: _merit(seats, index, pool, count, room))
            return _nearest_first(seats, index, best)[:count]
    return _nearest_first(seats, index, free)[:count]


def _merit(seats: Seats, index: int, pool: list[Core], count: int, room: int) -> tuple[int, ...]:
    """Neighbours first, then fast cores, then room for the whole chain, then the tightest fit, then the order."""
    slow = sum(core.efficient for core in pool[:count])
    has_room = len(pool) >= room
    tightness = -len(pool) if has_room else len(pool)
    near = seats.pull(index, pool, "l3"), seats.pull(index, pool, "node")
    return (*near, -slow, has_room, tightness, -pool[0].number)


def _nearest_first(seats: Seats, index: int, pool: list[Core]) -> list[Core]:
    """Fast cores, then those under the fullest L3, then those that share an L2 with neighbours, then the order."""
    sizes = Counter(core.l3 for core in pool)
    near = {core.l2: seats.pull(index, [core], "l2") for core in pool}
    return sorted(pool, key=lambda core: (core.efficient, -sizes[core.l3], core.l3, -near[core.l2], core.number))


def _least_loaded(seats: Seats, index: int) -> Core:
    """Cores that somebody asked for are touched only when there is no other."""
    candidates = [core for core in seats.cores if core.number not in seats.owned] or list(seats.cores)
    return min(
        candidates,
        key=lambda core: (seats.load[core.number], -seats.pull(index, [core], "l3"), candidates.index(core)),
    )
