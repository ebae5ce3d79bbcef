"""In which order the workers of a graph start and stop. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..spec import GraphSpec

# By worker: those that its messages go to.
Targets = Mapping[str, Sequence[str]]


def targets_of(spec: GraphSpec, workers_of: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """By worker, in order of adding, the others that edges lead to; `workers_of` names those of each actor."""
    found: dict[str, dict[str, None]] = {worker: {} for actor in spec.actors for worker in workers_of[actor.name]}
    for edge in spec.edges:
        for source in workers_of[edge.source.actor]:
            found[source].update(dict.fromkeys(each for each in workers_of[edge.target.actor] if each != source))
    return {worker: list(targets) for worker, targets in found.items()}


def start_order(targets: Targets) -> list[str]:
    """Targets before their sources; a circle is entered where it was added first."""
    order: dict[str, None] = {}
    entered: set[str] = set()
    for first in targets:
        way = [(first, iter(targets[first]))] if first not in entered else []
        entered.add(first)
        while way:
            worker, others = way[-1]
            further = next((each for each in others if each not in entered), None)
            if further is None:
                order[worker] = None
                way.pop()
            else:
                entered.add(further)
                way.append((further, iter(targets[further])))
    return list(order)


def stop_waves(order: Sequence[str], targets: Targets) -> list[list[str]]:
    """The reverse: a sender stops before its targets. Workers that need not wait for each other are in one wave."""
    position = {worker: index for index, worker in enumerate(order)}
    wave = dict.fromkeys(order, 0)
    for source in reversed(order):
        for target in targets[source]:
            if position[target] < position[source]:  # else it closes a circle
                wave[target] = max(wave[target], wave[source] + 1)
    return [[each for each in reversed(order) if wave[each] == number] for number in sorted(set(wave.values()))]
