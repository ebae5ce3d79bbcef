"""Whether a worker should move because its core is saturated while another idles. No I/O; time is an argument."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ..host.topology import Core, Topology
from .pinning import cores_of, present
from .plan import Plan, WorkerPlan

# In cores' worth of CPU time that the workers of a physical core want. What they wait for counts as what they get, so
# two that always have work want two cores, wherever they are.
SATURATED_FROM = 0.95
# A core whose workers want more than this does not idle.
IDLE_BELOW = 0.5
# Who wants less than this is not in anybody's way, and moving it helps nobody.
BUSY_FROM = 0.1
# By how much the fuller of both cores must get emptier. Else two cores would take turns at being the fuller one.
LEAST_GAIN = 0.3
# The cause must last, or it is a burst; then what a move does must show before the next one.
HOLD_S = 2.0
COOLDOWN_S = 10.0
# Who was moved stays there for at least this long.
RESIDENCE_S = 60.0


class Proposal(NamedTuple):
    """Where a worker should go, and why, in words."""

    worker: str
    cpus: tuple[int, ...]
    reason: str


class Rebalancer:
    """Workers that asked for cores are left alone, and nobody is put onto their cores."""

    def __init__(self, topology: Topology) -> None:
        self._cores = topology.cores[: topology.usable_cores]
        self._since_s: dict[int, float] = {}  # by core: since when a move away from it would pay
        self._not_before_s = 0.0
        self._moved_s: dict[str, float] = {}

    def look(self, plan: Plan, demands: Mapping[str, float], now_s: float) -> Proposal | None:
        """What to do now, given what each worker has lately wanted; a proposal is taken to be followed."""
        wanted = {core.number: self._wanted(core, plan, demands) for core in self._cores}
        best = {core.number: self._best(core, plan, demands, wanted, now_s) for core in self._cores}
        pays = {number: move for number, move in best.items() if move is not None}
        self._since_s = {number: self._since_s.get(number, now_s) for number in pays}
        if now_s < self._not_before_s:
            return None
        lasting = [number for number, since_s in self._since_s.items() if now_s - since_s >= HOLD_S]
        if not lasting:
            return None
        proposal = pays[max(lasting, key=lambda number: wanted[number])]
        self._moved_s[proposal.worker] = now_s
        self._not_before_s = now_s + COOLDOWN_S
        self._since_s.clear()
        return proposal

    def _wanted(self, core: Core, plan: Plan, demands: Mapping[str, float]) -> float:
        """What the workers of a core want of it; one that has several spreads over them."""
        workers = self._workers(core, plan)
        return sum(demands.get(each.name, 0.0) / max(1, len(cores_of(each.cores, self._cores))) for each in workers)

    def _workers(self, core: Core, plan: Plan) -> list[WorkerPlan]:
        return [plan.workers[index] for index in present(core, [each.cores for each in plan.workers])]

    def _best(
        self, core: Core, plan: Plan, demands: Mapping[str, float], wanted: Mapping[int, float], now_s: float
    ) -> Proposal | None:
        """The move away from a saturated core after which the fuller of both is emptiest."""
        here = wanted[core.number]
        busy = [each for each in self._workers(core, plan) if demands.get(each.name, 0.0) >= BUSY_FROM]
        if here < SATURATED_FROM or len(busy) < 2:
            return None
        movable = [each for each in busy if self._may_move(each, now_s)]
        targets = list(self._targets(core, plan, wanted))
        if not movable or not targets:
            return None

        def merit(pair: tuple[WorkerPlan, Core]) -> tuple[float, bool, bool, bool, float]:
            worker, target = pair
            fuller = max(here - demands[worker.name], wanted[target.number] + demands[worker.name])
            away = target.l3 != core.l3, target.node != core.node
            return (round(fuller, 1), target.efficient and not core.efficient, *away, wanted[target.number])

        worker, target = min(((one, other) for one in movable for other in targets), key=merit)
        if merit((worker, target))[0] > here - LEAST_GAIN:
            return None
        there = wanted[target.number]
        reason = f"core {core.number} was wanted {here:.1f} times, core {target.number} {there:.1f} times"
        return Proposal(worker.name, tuple(sorted(target.cpus)), reason)

    def _may_move(self, worker: WorkerPlan, now_s: float) -> bool:
        moved_s = self._moved_s.get(worker.name)
        has_stayed = moved_s is None or now_s - moved_s >= RESIDENCE_S
        return has_stayed and not worker.asked and worker.threads == len(cores_of(worker.cores, self._cores)) == 1

    def _targets(self, source: Core, plan: Plan, wanted: Mapping[int, float]) -> Iterator[Core]:
        for core in self._cores:
            owned = any(each.asked for each in self._workers(core, plan))
            if core is not source and not owned and wanted[core.number] < IDLE_BELOW:
                yield core
