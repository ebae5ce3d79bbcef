"""The threads of ONNX Runtime's pools are on the plan's CPUs: each on a core of its own, also after a move."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tiny_llm
import tiny_onnx
from plans import machine
from slabwire import Graph
from slabwire.actors.inference import Model
from slabwire.actors.llm import LanguageModel
from slabwire.actors.onnx_runtime import pool_seats, seats_on
from slabwire.runtime.clients.control import Control
from slabwire.runtime.control.verbs import Move
from slabwire.runtime.host.topology import Core, Topology
from slabwire.runtime.launch.running import Running
from slabwire.runtime.placement.plan import cpu_list
from slabwire.shm.cgroup import parse_cpu_list
from tiny_onnx import FLOAT
from waiting import worker_of

CPUS = sorted(os.sched_getaffinity(0))


def test_each_thread_but_the_caller_has_a_core() -> None:
    assert seats_on(3, machine(4).cores) == "2;3"
    assert seats_on(2, machine(2, threads=2).cores) == "2,4"  # CPUs 1 and 3, which ONNX Runtime counts from 1
    assert seats_on(3, machine(2).cores) == ""  # more threads than cores: the kernel spreads them better
    assert seats_on(2, [Core(5, (5,), 5, 0), Core(2, (2,), 2, 0)]) == "6"


def test_nobody_is_pinned_without_a_plan() -> None:
    assert pool_seats(1, CPUS) == ""
    assert pool_seats(2, [*CPUS, 4000]) == ""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Both kinds of actors in one worker with two cores of its own."""
    if len({core.number for core in Topology.read().cores}) < 2:
        pytest.skip("a pool takes two cores")
    folder = tmp_path_factory.mktemp("pools")
    path = folder / "add.onnx"
    path.write_bytes(
        tiny_onnx.model([("Add", ["x", "y"], ["sum"])], [(each, FLOAT, [4]) for each in "xy"], [("sum", FLOAT, [4])])
    )
    graph = Graph(f"pools-{os.getpid()}")
    model = graph.add(Model, path=str(path), worker="both", cores=2)
    llm = graph.add(LanguageModel, name="llm", model=str(tiny_llm.write_tiny_llm(folder)), worker="both", cores=2)
    graph.expose(model.infer, model.describe, llm.describe)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLABWIRE_CACHE_DIR", str(folder / "cache"))
        with graph.run() as running:
            running.client.call("model.describe")
            yield running


def masks(pid: int) -> Counter[frozenset[int]]:
    """How many threads of a process may run on which CPUs, as /proc/PID/task/*/status says."""
    return Counter(
        frozenset(parse_cpu_list(line.partition(":")[2]))
        for task in Path(f"/proc/{pid}/task").iterdir()
        for line in (task / "status").read_text().splitlines()
        if line.startswith("Cpus_allowed_list:")
    )


def test_pools_are_as_large_as_planned_and_sit_where_planned(running: Running) -> None:
    worker = worker_of(running, "both")
    cores = [core for core in Topology.read().cores if set(core.cpus) <= set(worker["cores"])]
    second = max(cores, key=lambda core: core.number)
    assert running.client.call("model.describe")["threads"] == worker["threads"] == len(cores) == 2
    found = masks(worker["pid"])
    assert found[frozenset(second.cpus)] == 2  # a thread of each actor's pool
    assert set(found) == {frozenset(worker["cores"]), frozenset(second.cpus)}


def test_pools_move_along(running: Running) -> None:
    """The same CPUs again, then others where there are such; the kernel is asked, not the plan."""
    before = worker_of(running, "both")
    others = [cpu for cpu in CPUS if cpu not in before["cores"]]
    target = tuple(others if len(others) >= len(before["cores"]) else before["cores"])
    with Control(running.name) as control:
        control.request(Move(actor="model", cpus=cpu_list(target)))
    found = masks(worker_of(running, "both")["pid"])
    assert all(mask <= set(target) for mask in found)
    assert sum(count for mask, count in found.items() if mask < set(target)) == 2
    x: Any = np.ones(4, np.float32)
    np.testing.assert_array_equal(running.client.call("model.infer", {"x": x, "y": x}), x + x)
