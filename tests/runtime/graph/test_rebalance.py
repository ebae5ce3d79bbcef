"""Rebalancing, simulated: workers that want some CPU time, cores that have only so much, and what is decided."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plans import actor, graph, machine
from slabwire.runtime.errors import StartError
from slabwire.runtime.host import cpu_load as load
from slabwire.runtime.host.cpu_load import LoadMeter, cpu_times
from slabwire.runtime.host.topology import Topology
from slabwire.runtime.placement.moves import moved
from slabwire.runtime.placement.pinning import present
from slabwire.runtime.placement.plan import Plan, plan
from slabwire.runtime.placement.rebalance import COOLDOWN_S, HOLD_S, LEAST_GAIN, RESIDENCE_S, Proposal, Rebalancer

TWO, FOUR = machine(2), machine(4)


class Simulation:
    """A graph whose workers want what `wants` says, looked at twice a second; moves are followed."""

    def __init__(self, topology: Topology, start: Plan) -> None:
        self.topology, self.plan, self.now_s = topology, start, 1000.0
        self.rebalancer = Rebalancer(topology)
        self.moves: list[tuple[float, Proposal]] = []

    def run(self, seconds: float, wants: Mapping[str, float]) -> list[str]:
        """Who was moved in that time."""
        known, until = len(self.moves), self.now_s + seconds
        while self.now_s < until:
            proposal = self.rebalancer.look(self.plan, wants, self.now_s)
            if proposal is not None:
                self.moves.append((self.now_s, proposal))
                self.plan = moved(self.plan, self.topology, proposal.worker, proposal.cpus, "rebalanced")
            self.now_s += 0.5
        return [proposal.worker for _, proposal in self.moves[known:]]

    def wanted(self, wants: Mapping[str, float]) -> list[float]:
        """What the workers of each core want, each having one core here."""
        pins = [each.cores for each in self.plan.workers]
        return [
            sum(wants[self.plan.workers[index].name] for index in present(core, pins)) for core in self.topology.cores
        ]


def crowded(topology: Topology, *names: str) -> Plan:
    """All on the first core."""
    result = plan(graph(*map(actor, names)), topology)
    for name in names:
        result = moved(result, topology, name, topology.cores[0].cpus, "crowded")
    return result


def test_two_busy_ones_on_one_core_are_spread() -> None:
    simulation = Simulation(TWO, crowded(TWO, "a", "b"))
    assert simulation.run(HOLD_S, {"a": 1.0, "b": 1.0}) == []  # it may be a burst
    assert simulation.run(1.0, {"a": 1.0, "b": 1.0}) == ["a"]
    assert [each.cores for each in simulation.plan.workers] == [(1,), (0,)]
    assert simulation.moves[0][1].reason == "core 0 was wanted 2.0 times, core 1 0.0 times"
    assert simulation.run(600, {"a": 1.0, "b": 1.0}) == []


def test_a_burst_moves_nobody() -> None:
    simulation = Simulation(TWO, crowded(TWO, "a", "b"))
    for _ in range(20):
        assert simulation.run(HOLD_S - 0.5, {"a": 1.0, "b": 1.0}) == []
        assert simulation.run(0.5, {"a": 0.1, "b": 0.1}) == []


def test_a_worker_alone_on_its_core_stays_there() -> None:
    simulation = Simulation(FOUR, plan(graph(actor("a"), actor("b")), FOUR))
    assert simulation.run(100, {"a": 1.0, "b": 0.0}) == []


def test_idle_companions_do_not_count() -> None:
    simulation = Simulation(FOUR, crowded(FOUR, "busy", "idle", "idler"))
    assert simulation.run(100, {"busy": 1.0, "idle": 0.02, "idler": 0.02}) == []


def test_nobody_moves_where_the_other_core_is_busy_too() -> None:
    start = moved(crowded(TWO, "a", "b", "c"), TWO, "c", (1,), "moved")
    assert Simulation(TWO, start).run(100, {"a": 0.6, "b": 0.6, "c": 0.6}) == []


def test_no_ping_pong_with_three_on_two_cores() -> None:
    """Whatever is done, one core is wanted twice."""
    simulation = Simulation(TWO, crowded(TWO, "a", "b", "c"))
    simulation.run(3600, dict.fromkeys("abc", 1.0))
    assert len(simulation.moves) == 1


def test_cores_that_were_asked_for_are_left_alone() -> None:
    start = plan(graph(actor("heavy", cores=1), actor("a"), actor("b")), TWO)
    assert [each.cores for each in start.workers] == [(0,), (1,), (1,)]
    assert Simulation(TWO, start).run(100, {"heavy": 0.0, "a": 1.0, "b": 1.0}) == []
    guest = plan(graph(actor("heavy", cores=1), actor("guest")), FOUR)
    guest = moved(guest, FOUR, "guest", (0,), "moved")
    simulation = Simulation(FOUR, guest)
    assert simulation.run(10, {"heavy": 1.0, "guest": 1.0}) == ["guest"]
    assert simulation.plan.worker("heavy").cores == (0,)


def test_a_near_core_is_preferred() -> None:
    wide = machine(8, per_l3=4, per_node=4)
    start = moved(crowded(wide, "a", "b"), wide, "a", (5,), "moved")
    start = moved(start, wide, "b", (5,), "moved")
    simulation = Simulation(wide, start)
    simulation.run(10, {"a": 1.0, "b": 1.0})
    assert simulation.plan.worker("a").cores == (4,)


def test_a_busy_thread_beside_another_goes_to_a_whole_core() -> None:
    smt = machine(2, threads=2)
    start = moved(moved(plan(graph(actor("a"), actor("b")), smt), smt, "a", (0,), ""), smt, "b", (2,), "")
    simulation = Simulation(smt, start)
    assert simulation.run(10, {"a": 1.0, "b": 1.0}) == ["a"]
    assert simulation.plan.worker("a").cores == (1, 3)


machines_of = st.builds(machine, cores=st.integers(1, 6), threads=st.integers(1, 2), per_l3=st.sampled_from([2, 4]))


@settings(max_examples=20, deadline=None)
@given(machines_of, st.lists(st.floats(0, 1), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_it_comes_to_rest_and_only_ever_helps(topology: Topology, wants: list[float], dice: object) -> None:
    names = [f"w{index}" for index in range(len(wants))]
    start = plan(graph(*map(actor, names)), topology)
    for name in names:
        core = dice.choice(topology.cores)  # type: ignore[attr-defined]
        start = moved(start, topology, name, core.cpus, "")
    simulation, demand = Simulation(topology, start), dict(zip(names, wants, strict=True))
    fullest = [max(simulation.wanted(demand))]
    for _ in range(10):
        simulation.run(RESIDENCE_S, demand)
        fullest.append(max(simulation.wanted(demand)))
    assert fullest == sorted(fullest, reverse=True)
    at = [when for when, _ in simulation.moves]
    assert all(later - earlier >= COOLDOWN_S for earlier, later in pairwise(at))
    assert len(at) <= len(names)
    assert simulation.run(RESIDENCE_S, demand) == []
    wanted = simulation.wanted(demand)
    if max(wanted) >= 0.95 and min(wanted) < 0.5:  # then nobody on it could go without making another as full
        core = topology.cores[wanted.index(max(wanted))]
        there = [demand[each.name] for each in simulation.plan.workers if not set(each.cores).isdisjoint(core.cpus)]
        movable = [each for each in there if each >= 0.1]
        gains = [max(wanted) - max(max(wanted) - each, min(wanted) + each) for each in movable]
        assert len(movable) < 2 or max(gains) <= LEAST_GAIN + 0.1


def test_what_a_process_wants_is_what_it_gets_and_what_it_waits_for() -> None:
    meter, pid = LoadMeter(), os.getpid()
    assert meter.demands({"me": pid}, time.monotonic()) == {}  # nothing to compare with
    began = time.thread_time()
    while time.thread_time() < began + 0.05:
        pass
    wanted = meter.demands({"me": pid, "gone": 0}, time.monotonic())
    assert set(wanted) == {"me"}
    assert wanted["me"] > 0.5
    assert meter.demands({"me": os.getppid()}, time.monotonic()) == {}  # another process by that name
    assert cpu_times(1 << 30) is None


def test_a_kernel_that_does_not_count_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "cpu_times", lambda _pid: None)
    with pytest.raises(StartError, match="CONFIG_SCHED_INFO"):
        load.demand_counts()
