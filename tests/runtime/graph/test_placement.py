"""The plan: who goes where. Machines are made by hand here; reading them is tested elsewhere."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plans import (
    actor,
    check_cores,
    check_instances,
    check_sharing,
    check_spinning,
    graph,
    graphs,
    machine,
    machines,
)
from slabwire.runtime.host.topology import Core, Topology
from slabwire.runtime.placement.plan import Plan, cpu_list, plan
from slabwire.runtime.placement.seating import grants
from slabwire.runtime.spec import GraphSpec


def cores_of(result: Plan) -> dict[str, tuple[int, ...]]:
    return {worker.name: worker.cores for worker in result.workers}


def test_instances_are_numbered_only_where_there_are_replicas() -> None:
    assert actor("scale").instances() == ["scale"]
    assert actor("scale", replicas=2).instances() == ["scale[0]", "scale[1]"]


def test_each_instance_has_a_worker_and_a_core_of_its_own() -> None:
    result = plan(graph(actor("a"), actor("b", replicas=2)), machine(4))
    assert cores_of(result) == {"a": (0,), "b[0]": (1,), "b[1]": (2,)}
    assert all(worker.spin and worker.threads == 1 for worker in result.workers)


def test_asked_cores_come_with_all_their_threads() -> None:
    result = plan(graph(actor("light"), actor("heavy", cores=2)), machine(4, threads=2))
    assert cores_of(result) == {"light": (2, 6), "heavy": (0, 1, 4, 5)}
    assert result.worker_of("heavy").threads == 2
    assert "asked for 2, owns cores 0-1 whole" in result.worker_of("heavy").reason


def test_light_actors_share_what_nobody_asked_for() -> None:
    result = plan(graph(actor("heavy", cores=3), *(actor(f"light{index}") for index in range(3))), machine(4))
    assert result.worker_of("heavy").cores == (0, 1, 2)
    assert result.worker_of("heavy").spin
    assert {result.worker_of(f"light{index}").cores for index in range(3)} == {(3,)}
    assert not result.worker_of("light0").spin
    assert "shares core 3 with light1, light2" in result.worker_of("light0").reason


def test_too_many_asked_cores_are_shared_fairly_and_said() -> None:
    result = plan(graph(actor("big", cores=6), actor("small", cores=2)), machine(4))
    assert (result.worker_of("big").threads, result.worker_of("small").threads) == (3, 1)
    assert "asked for 6, gets cores 0-2: 2 workers ask for 8, 4 may be had" in result.worker_of("big").reason


def test_more_askers_than_cores_share_one_each() -> None:
    result = plan(graph(actor("heavy", cores=1, replicas=3)), machine(2))
    assert [worker.cores for worker in result.workers] == [(0,), (1,), (0,)]
    assert [worker.spin for worker in result.workers] == [False, True, False]
    assert "together with heavy[2]: 3 workers ask for 3, 2 may be had" in result.worker_of("heavy[0]").reason


def test_guests_keep_off_the_first_thread_of_an_owner() -> None:
    result = plan(graph(actor("light"), actor("heavy", cores=1), actor("other")), machine(1, threads=2))
    assert cores_of(result) == {"light": (1,), "heavy": (0,), "other": (1,)}
    assert result.worker_of("heavy").spin
    assert "light, other must share" in result.worker_of("heavy").reason


def test_light_ones_on_one_core_get_a_thread_each() -> None:
    result = plan(graph(actor("a"), actor("b")), machine(1, threads=2))
    assert cores_of(result) == {"a": (0,), "b": (1,)}


def test_least_loaded_by_weight() -> None:
    result = plan(graph(actor("heavy", weight=4), *(actor(f"light{index}") for index in range(4))), machine(2))
    assert [worker.cores for worker in result.workers] == [(0,), (1,), (1,), (1,), (1,)]


def test_actors_of_one_worker_share_its_process() -> None:
    result = plan(graph(actor("a", worker="w"), actor("b", worker="w", cores=2), actor("c")), machine(4))
    assert [(worker.name, worker.instances) for worker in result.workers] == [("w", ("a", "b")), ("c", ("c",))]
    assert result.worker_of("a").threads == 2


def test_replicas_of_one_worker_form_chains() -> None:
    result = plan(graph(actor("a", worker="w", replicas=2), actor("b", worker="w", replicas=3)), machine(4))
    assert {worker.name: worker.instances for worker in result.workers} == {
        "w[0]": ("a[0]", "b[0]"),
        "w[1]": ("a[1]", "b[1]"),
        "w[2]": ("b[2]",),
    }


def test_an_actor_may_join_the_worker_of_another() -> None:
    result = plan(graph(actor("a"), actor("b", worker="a")), machine(4))
    assert [(worker.name, worker.instances) for worker in result.workers] == [("a", ("a", "b"))]


def test_neighbours_share_an_l3_though_the_order_mixes_them() -> None:
    names = [f"{name}{step}" for step in range(4) for name in "ab"]
    edges = " ".join(f"{name}{step}>{name}{step + 1}" for step in range(3) for name in "ab")
    result = plan(graph(*map(actor, names), edges=edges), machine(8, per_l3=4))
    assert {worker.cores[0] // 4 for worker in result.workers if worker.name[0] == "a"} == {0}
    assert {worker.cores[0] // 4 for worker in result.workers if worker.name[0] == "b"} == {1}
    assert "same L3 as its neighbour" in result.worker_of("a1").reason


def test_a_light_neighbour_stays_beside_its_heavy_one() -> None:
    spec = graph(actor("one", cores=3), actor("two", cores=3), actor("near_two"), edges="two>near_two")
    result = plan(spec, machine(8, per_l3=4))
    assert result.worker_of("two").cores[0] // 4 == result.worker_of("near_two").cores[0] // 4


def test_what_fits_no_l3_stays_on_a_node() -> None:
    result = plan(graph(actor("small", cores=1), actor("wide", cores=7)), machine(16, per_l3=4, per_node=8))
    nodes = {cpu // 8 for cpu in result.worker_of("wide").cores}
    assert len(nodes) == 1
    assert "node" in result.worker_of("wide").reason


def test_fast_cores_go_to_those_who_ask() -> None:
    cores = tuple(Core(number, (number,), number, 0, efficient=number >= 2) for number in range(4))
    result = plan(graph(actor("light"), actor("heavy", cores=2)), Topology(cores))
    assert result.worker_of("heavy").cores == (0, 1)
    assert "with an efficiency core" in result.worker_of("light").reason


def test_quota_limits_cores_and_forbids_spinning_that_it_cannot_pay() -> None:
    spec = graph(actor("heavy", cores=2), actor("light"))
    result = plan(spec, machine(8, quota=1.5))
    assert cores_of(result) == {"heavy": (0,), "light": (1,)}
    assert result.worker_of("heavy").threads == 1
    assert not any(worker.spin for worker in result.workers)
    assert "CPU quota 1.5" in result.worker_of("heavy").reason
    alone = plan(graph(actor("heavy", cores=2)), machine(8, quota=1.5))
    assert [worker.spin for worker in alone.workers] == [True]
    assert [worker.spin for worker in plan(graph(actor("a")), machine(8, quota=0.5)).workers] == [False]


def test_the_plan_as_text_and_as_plain_data() -> None:
    result = plan(graph(actor("a", worker="w"), actor("b", worker="w"), actor("c", cores=1)), machine(2))
    lines = str(result).splitlines()
    assert lines[0] == "g on 2 cores, 1 L3, 1 NUMA node"
    assert lines[1].split() == ["worker", "actors", "CPUs", "threads", "spin", "why"]
    assert lines[2].startswith("w       a, b    1 ")
    assert "actors" not in str(plan(graph(actor("a")), machine(2)))  # each worker is called like its only actor
    plain = result.to_plain()
    assert json.loads(json.dumps(plain)) == plain
    assert plain["workers"][1]["cores"] == [0]


def test_an_instance_that_does_not_exist() -> None:
    with pytest.raises(KeyError):
        plan(graph(actor("a")), machine(1)).worker_of("b")


def test_cpu_list() -> None:
    assert cpu_list((0, 1, 2, 8, 10, 11)) == "0-2,8,10-11"
    assert cpu_list(()) == ""


@given(st.lists(st.integers(0, 20), min_size=1, max_size=12), st.integers(1, 30))
def test_grants_are_fair(asked: list[int], budget: int) -> None:
    granted = grants(asked, budget)
    assert all(got <= wanted for got, wanted in zip(granted, asked, strict=True))
    assert all(got >= 1 for got, wanted in zip(granted, asked, strict=True) if wanted)
    if sum(asked) <= budget:
        assert granted == asked
    elif sum(map(bool, asked)) <= budget:
        assert sum(granted) == budget
        for one, got in enumerate(granted):  # nobody could be given a core of another who has the larger part
            for other, theirs in enumerate(granted):
                if asked[one] > asked[other] or theirs <= 1 or got >= asked[one]:
                    continue
                assert (theirs - 1) / asked[other] <= got / asked[one]


@settings(deadline=None)
@given(graphs(), machines)
def test_every_plan_keeps_the_rules(spec: GraphSpec, topology: Topology) -> None:
    result = plan(spec, topology)
    assert result == plan(spec, topology)
    check_instances(spec, result)
    check_cores(result, topology)
    check_sharing(spec, result, topology)
    check_spinning(result, topology)


def test_replacing_the_quota_is_all_that_a_container_changes() -> None:
    spec = graph(actor("a"), actor("b"))
    assert plan(spec, replace(machine(4), quota=4.0)).workers == plan(spec, machine(4)).workers
