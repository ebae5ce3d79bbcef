"""A plan seen from the machine: for each core, who is on it. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any, NamedTuple

from ..host.topology import Core, Topology
from .plan import Plan, cpu_list, table_lines


class Stretch(NamedTuple):
    """Neighbouring cores of one L3 with the same workers on them, thread by thread. `workers` is empty where free."""

    node: int
    l3: int
    cores: tuple[Core, ...]
    workers: tuple[tuple[str, ...], ...]
    is_usable: bool = True  # the CPU quota has use for them

    @property
    def numbers(self) -> tuple[int, ...]:
        return tuple(core.number for core in self.cores)

    @property
    def cpus(self) -> tuple[int, ...]:
        return tuple(sorted(cpu for core in self.cores for cpu in core.cpus))


def by_thread(plan: Plan, core: Core) -> tuple[tuple[str, ...], ...]:
    """Who may run on each hardware thread of a core; () for each where nobody is."""
    return tuple(tuple(each.name for each in plan.workers if cpu in each.cores) for cpu in core.cpus)


def stretches(plan: Plan, topology: Topology) -> Iterator[Stretch]:
    """The machine in order of nodes, caches and cores."""
    cores = sorted(topology.cores, key=lambda core: (core.node, core.l3, core.number))
    usable = {core.number for core in topology.cores[: topology.usable_cores]}

    def key(core: Core) -> tuple[Any, ...]:
        return core.node, core.l3, core.efficient, _shown(by_thread(plan, core)), core.number in usable

    for (node, l3, _, workers, is_usable), group in groupby(cores, key=key):
        yield Stretch(node, l3, tuple(group), workers, is_usable)


def _shown(threads: tuple[tuple[str, ...], ...]) -> tuple[tuple[str, ...], ...]:
    """The same workers on all threads are said once; nobody at all, not at all."""
    distinct = tuple(dict.fromkeys(threads))
    if distinct == ((),):
        return ()
    return distinct if len(distinct) == 1 else threads


def map_rows(plan: Plan, topology: Topology) -> list[tuple[str, ...]]:
    """(node, L3, cores, hardware threads, who): what stands still from one row to the next is left out."""
    rows: list[tuple[str, ...]] = []
    before = ("", "")
    caches = sorted({core.l3 for core in topology.cores})
    for each in stretches(plan, topology):
        place = str(each.node), str(caches.index(each.l3))
        shown = ("" if place[0] == before[0] else place[0], "" if place == before else place[1])
        threads = cpu_list(each.cpus) if each.cpus != each.numbers else ""
        slow = " (slow)" if each.cores[0].efficient else ""
        rows.append((*shown, cpu_list(each.numbers) + slow, threads, who(each)))
        before = place
    return rows


def who(stretch: Stretch) -> str:
    """The workers of a stretch in words; by hardware thread where these differ."""
    workers = stretch.workers
    if not workers:
        return "free" if stretch.is_usable else "not used: the CPU quota does not pay for more"
    if len(workers) == 1:
        return ", ".join(workers[0])
    cpus = zip(stretch.cores[0].cpus, workers, strict=True)
    return "; ".join(f"CPU {cpu}: {', '.join(names) or 'free'}" for cpu, names in cpus)


def map_text(plan: Plan, topology: Topology) -> str:
    """The map as a table, with what is not on it."""
    rows = [("node", "L3", "cores", "CPUs", "workers"), *map_rows(plan, topology)]
    return "\n".join([*table_lines(rows), NOT_PINNED])


# They wake rarely (supervisor), or are somebody else's processes (clients); the kernel finds them a core that is idle.
NOT_PINNED = "Not pinned: the supervisor, the gateway and clients; they run on what is idle."


def map_plain(plan: Plan, topology: Topology) -> list[dict[str, object]]:
    """The map for programs: a dict for each physical core."""
    return [
        {
            "core": core.number,
            "cpus": list(core.cpus),
            "l2": core.l2,
            "l3": core.l3,
            "node": core.node,
            "package": core.package,
            "efficient": core.efficient,
            "workers": list(dict.fromkeys(name for names in by_thread(plan, core) for name in names)),
        }
        for core in topology.cores
    ]
