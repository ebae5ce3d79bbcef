"""The plan: which worker on which cores, with how many threads, and why. Pure: a graph and a machine go in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..host.topology import Core, Topology
from ..spec import ActorSpec, GraphSpec
from .pinning import Pins, companions, is_affordable, may_spin
from .seating import Seats, Team, grants, seat


@dataclass(frozen=True)
class WorkerPlan:
    """One worker process.

    `cores` are the CPU numbers to pin it to, `threads` the size of the thread pools its actors should use, `spin`
    whether it may spin: no other worker is pinned to one of its CPUs and the quota pays for all that may be busy.
    `asked` is how many whole cores its actors asked for.
    """

    name: str
    instances: tuple[str, ...]
    cores: tuple[int, ...]
    threads: int
    spin: bool
    reason: str
    asked: int = 0

    def to_plain(self) -> dict[str, Any]:
        """A dict of lists, str, int and bool: what JSON and msgpack carry."""
        return {**asdict(self), "instances": list(self.instances), "cores": list(self.cores)}


@dataclass(frozen=True)
class Plan:
    """Where every actor of a graph goes. `machine` says what the plan started from; `str(plan)` is a table."""

    graph: str
    machine: str
    workers: tuple[WorkerPlan, ...]

    def worker(self, name: str) -> WorkerPlan:
        """The line of one worker; raises KeyError for a name that no worker has."""
        return {each.name: each for each in self.workers}[name]

    def worker_of(self, instance: str) -> WorkerPlan:
        """The worker that runs an actor instance; raises KeyError for an instance that the graph does not have."""
        return {name: each for each in self.workers for name in each.instances}[instance]

    def to_plain(self) -> dict[str, Any]:
        """Nested dicts, lists, str, int and bool: what JSON and msgpack carry."""
        workers = [each.to_plain() for each in self.workers]
        return {"graph": self.graph, "machine": self.machine, "workers": workers}

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Plan:
        """The inverse of `to_plain`, also after JSON or msgpack."""
        workers = (
            WorkerPlan(**{**each, "instances": tuple(each["instances"]), "cores": tuple(each["cores"])})
            for each in plain["workers"]
        )
        return cls(plain["graph"], plain["machine"], tuple(workers))

    def __str__(self) -> str:
        rows = [("worker", "actors", "CPUs", "threads", "spin", "why")]
        for each in self.workers:
            actors = "" if each.instances == (each.name,) else ", ".join(each.instances)
            spin = "yes" if each.spin else "no"
            rows.append((each.name, actors, cpu_list(each.cores), str(each.threads), spin, each.reason))
        return "\n".join([f"{self.graph} on {self.machine}", *table_lines(rows)])


def plan(spec: GraphSpec, topology: Topology) -> Plan:
    """Places every actor instance of `spec` on the cores of `topology`; the same arguments give the same plan.

    Actors that ask for cores get whole physical ones first; nobody shares a physical core while one is free;
    neighbours share an L3, else a node, where it has room; the CPU quota limits how many cores are used.
    """
    teams = _teams(spec)
    granted = grants([team.asked for team in teams], topology.whole_cores)
    usable = topology.cores[: topology.usable_cores]
    seats = seat(teams, granted, _bonds(spec, teams), usable)
    pinned = _pin(seats)
    spinning = may_spin(pinned, topology)
    writer = _Reasons(teams, seats, granted, topology, pinned)
    workers = tuple(
        WorkerPlan(
            team.name,
            team.instances,
            pinned[index],
            threads=max(1, granted[index]),
            spin=spinning[index],
            reason=writer.reason(index),
            asked=team.asked,
        )
        for index, team in enumerate(teams)
    )
    return Plan(spec.name, topology.describe(), workers)


def table_lines(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Rows, the headings first, as lines of aligned columns; a column that is empty below its heading is left out."""
    columns = [column for column in zip(*rows, strict=True) if any(column[1:])]
    widths = [max(map(len, column)) for column in columns]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in zip(*columns, strict=True)]


def listed(names: Sequence[str]) -> str:
    """The first three names, and how many there are beside them."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def cpu_list(numbers: tuple[int, ...]) -> str:
    """CPU numbers as the kernel writes them: (0, 1, 2, 8) is "0-2,8"."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _teams(spec: GraphSpec) -> list[Team]:
    """The processes of a graph.

    Actors that name a worker share it with whoever else names it, or is called like it. Of replicated actors each
    instance i goes to the process `worker[i]`, so that one instance of each forms a chain of its own.
    """
    members: dict[str, list[ActorSpec]] = {}
    for actor in spec.actors:
        members.setdefault(actor.worker or actor.name, []).append(actor)
    teams = []
    for worker, actors in members.items():
        count = max(actor.replicas for actor in actors)
        for index in range(count):
            present = [actor for actor in actors if index < actor.replicas]
            teams.append(
                Team(
                    worker if count == 1 else f"{worker}[{index}]",
                    tuple(actor.instances()[index] for actor in present),
                    tuple(actor.name for actor in present),
                    # A worker runs one plain handler at a time, so its actors can take turns on the same cores.
                    asked=max(actor.cores for actor in present),
                    weight=sum(actor.weight for actor in present),
                )
            )
    return teams


def _bonds(spec: GraphSpec, teams: list[Team]) -> list[dict[int, int]]:
    """For each team: how many edges lead to or from each other team."""
    homes: dict[str, list[int]] = {}
    for index, team in enumerate(teams):
        for actor in team.actors:
            homes.setdefault(actor, []).append(index)
    bonds: list[dict[int, int]] = [{} for _ in teams]
    for edge in spec.edges:
        for one in homes.get(edge.source.actor, ()):
            for other in homes.get(edge.target.actor, ()):
                if one != other:
                    bonds[one][other] = bonds[one].get(other, 0) + 1
                    bonds[other][one] = bonds[other].get(one, 0) + 1
    return bonds


def _pin(seats: Seats) -> list[tuple[int, ...]]:
    """Who has a core alone may use all its hardware threads; those who share one are dealt them in turn.

    The first of a core is its owner where somebody asked for it: the others keep off its thread if there is another.
    """
    cpus: list[set[int]] = [set() for _ in seats.cores_of]
    for core, present in seats.by_core():
        if len(present) == 1:
            cpus[present[0]].update(core.cpus)
            continue
        owned = core.number in seats.owned and len(core.cpus) > 1
        shared = core.cpus[1:] if owned else core.cpus
        for position, index in enumerate(present[1:] if owned else present):
            cpus[index].add(shared[position % len(shared)])
        if owned:
            cpus[present[0]].add(core.cpus[0])
    return [tuple(sorted(each)) for each in cpus]


class _Reasons:
    """Says in one sentence why a worker sits where it does."""

    def __init__(self, teams: list[Team], seats: Seats, granted: list[int], topology: Topology, pins: Pins) -> None:
        self._teams, self._seats, self._granted, self._topology = teams, seats, granted, topology
        self._company = [companions(index, pins, topology.cores) for index in range(len(teams))]
        self._spin_note = "" if is_affordable(pins, topology) else f"; no spinning on a CPU quota of {topology.quota:g}"

    def reason(self, index: int) -> str:
        team, cores = self._teams[index], self._seats.cores_of[index]
        guests = listed([self._teams[other].name for other in self._company[index]])
        place = f"{'core' if len(cores) == 1 else 'cores'} {cpu_list(tuple(core.number for core in cores))}"
        if not team.asked:
            text = self._unasked(index, place, guests)
        elif not self._is_short(index):
            text = f"asked for {team.asked}, owns {place}"
            text += f"; {guests} must share: no core is free" if guests else " whole"
        else:
            together = f" together with {guests}" if guests else ""
            text = f"asked for {team.asked}, gets {place}{together}: {self._shortage()}"
        return text + self._where(cores) + self._spin_note

    def _unasked(self, index: int, place: str, guests: str) -> str:
        if guests:
            return f"shares {place} with {guests}: {self._usable()}, none is free"
        near = [self._teams[other].name for other in self._seats.near(index)]
        return f"alone on {place}" + (f", same L3 as its neighbour {near[0]}" if near else "")

    def _is_short(self, index: int) -> bool:
        """Whether a team got fewer cores than it asked for, or must share one with another that asked."""
        rivals = [other for other in self._company[index] if self._teams[other].asked]
        return self._granted[index] < self._teams[index].asked or bool(rivals)

    def _shortage(self) -> str:
        asking = [team.asked for team in self._teams if team.asked]
        quota = self._topology.quota
        limit = "" if quota is None else f" (CPU quota {quota:g})"
        verb = "worker asks" if len(asking) == 1 else "workers ask"
        return f"{len(asking)} {verb} for {sum(asking)}, {self._topology.whole_cores} may be had{limit}"

    def _usable(self) -> str:
        quota = self._topology.quota
        usable = self._topology.usable_cores
        limit = f" by a CPU quota of {quota:g}" if quota is not None and usable < len(self._topology.cores) else ""
        return f"{usable} {'core is' if usable == 1 else 'cores are'} usable{limit}"

    def _where(self, cores: list[Core]) -> str:
        """Named only where the machine has more than one of a kind."""
        parts = []
        for noun, kind in (("node", "node"), ("L3", "l3")):
            all_of_machine = sorted({getattr(core, kind) for core in self._topology.cores})
            mine = sorted({all_of_machine.index(getattr(core, kind)) for core in cores})
            if len(all_of_machine) > 1:
                parts.append(f"{noun} {cpu_list(tuple(mine))}")
        if any(core.efficient for core in cores):
            parts.append("with an efficiency core")
        return f" ({', '.join(parts)})" if parts else ""
