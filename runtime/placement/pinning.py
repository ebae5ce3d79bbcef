"""Who is pinned to which CPUs, whatever led to it: who shares a core, and who may spin there. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ..host.topology import Core, Topology

Pins = Sequence[Collection[int]]  # CPU numbers, by the index of a worker


def present(core: Core, pins: Pins) -> list[int]:
    """The workers that may run on a physical core."""
    return [index for index, cpus in enumerate(pins) if not set(core.cpus).isdisjoint(cpus)]


def cores_of(cpus: Collection[int], cores: Sequence[Core]) -> list[Core]:
    """The physical cores that CPUs belong to."""
    return [core for core in cores if not set(core.cpus).isdisjoint(cpus)]


def companions(index: int, pins: Pins, cores: Sequence[Core]) -> list[int]:
    """The workers that share a physical core with one."""
    mine = cores_of(pins[index], cores)
    return [other for other in range(len(pins)) if other != index and cores_of(pins[other], mine)]


def may_spin(pins: Pins, topology: Topology) -> list[bool]:
    """For each worker: whether no other is pinned to one of its CPUs and the quota pays for all that may be busy."""
    if not is_affordable(pins, topology):
        return [False] * len(pins)
    return [
        all(set(mine).isdisjoint(other) for position, other in enumerate(pins) if position != index)
        for index, mine in enumerate(pins)
    ]


def is_affordable(pins: Pins, topology: Topology) -> bool:
    """Whether the quota pays for all workers at once: one thread a core, or one a CPU where a core is shared."""
    if topology.quota is None:
        return True
    total = 0
    for core in topology.cores:
        there = present(core, pins)
        used = {cpu for index in there for cpu in pins[index] if cpu in core.cpus}
        total += len(used) if len(there) > 1 else len(there)
    return total <= topology.quota
