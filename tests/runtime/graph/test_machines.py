"""Plans for machines that we do not have: read from recorded trees, laid out, drawn, and recorded once more."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

import machines
from fake_graphs import fake_targets, invoke
from machines import record
from plans import actor, check_cores, check_instances, check_sharing, check_spinning, graph
from slabwire.runtime.host.recorded_machine import MachineError, read_machine, record_machine
from slabwire.runtime.host.topology import Topology
from slabwire.runtime.placement.machine_map import map_rows, map_text, stretches
from slabwire.runtime.placement.moves import moved
from slabwire.runtime.placement.picture import picture
from slabwire.runtime.placement.plan import Plan, plan

SERVICE = graph(
    actor("ingress"),
    actor("tokenizer", replicas=2),
    actor("llm", cores=4, replicas=2),
    actor("detect", cores=2),
    actor("log"),
    edges="ingress>tokenizer tokenizer>llm detect>log",
)
SMALL = graph(actor("a"), actor("b"), actor("c"), edges="a>b b>c")


@cache
def topology_of(name: str) -> Topology:
    with TemporaryDirectory() as folder:
        return Topology.read(record(Path(folder), machines.ALL[name]()))


def cpus_of(result: Plan, worker: str) -> set[int]:
    return set(result.worker(worker).cores)


@pytest.mark.parametrize("name", machines.ALL)
@pytest.mark.parametrize("spec", [SERVICE, SMALL], ids=["service", "small"])
def test_every_plan_keeps_the_rules(name: str, spec: Any) -> None:
    topology = topology_of(name)
    result = plan(spec, topology)
    check_instances(spec, result)
    check_cores(result, topology)
    check_sharing(spec, result, topology)
    check_spinning(result, topology)


@pytest.mark.parametrize("name", machines.ALL)
def test_pools_and_chains_stay_together(name: str) -> None:
    """No pool spans nodes, or mixes fast cores with slow ones, where it need not."""
    topology, result = topology_of(name), plan(SERVICE, topology_of(name))
    home = {cpu: core for core in topology.cores for cpu in core.cpus}
    for worker in result.workers:
        cores = [home[cpu] for cpu in worker.cores]
        assert len({core.node for core in cores}) == len({core.efficient for core in cores}) == 1
    if len(topology.cores) > 48:
        for chain in (("ingress", "tokenizer[0]", "tokenizer[1]"), ("detect", "log")):
            assert len({home[cpu].l3 for worker in chain for cpu in cpus_of(result, worker)}) == 1


def test_epyc() -> None:
    topology = topology_of("epyc")
    assert topology.describe().startswith("64 cores, 128 hardware threads, 8 L3s, 2 NUMA nodes")
    assert cpus_of(plan(SERVICE, topology), "llm[0]") == {0, 1, 2, 3, 64, 65, 66, 67}
    assert topology_of("epyc_nps4").describe().startswith("64 cores, 128 hardware threads, 8 L3s, 8 NUMA nodes")


def test_numbers_that_alternate_between_sockets() -> None:
    topology = topology_of("interleaved_xeon")
    assert [core.number for core in topology.cores[:5]] == [0, 2, 4, 6, 8]
    assert {core.node for core in topology.cores} == {0, 1, 2, 3}
    assert len({core.l3 for core in topology.cores}) == 2
    assert cpus_of(plan(SERVICE, topology), "llm[0]") == {0, 2, 4, 6, 16, 18, 20, 22}


def test_hybrid() -> None:
    topology = topology_of("alder_lake")
    assert [core.efficient for core in topology.cores] == [False] * 6 + [True] * 8
    result = plan(SERVICE, topology)
    assert cpus_of(result, "llm[0]") == set(range(8))
    assert cpus_of(result, "llm[1]") == {12, 13, 14, 15}  # two fast cores are left: not enough for four threads
    assert cpus_of(result, "detect") == {8, 9, 10, 11}


def test_neighbours_share_an_l2_where_they_can() -> None:
    names = [f"{name}{step}" for step in range(4) for name in "ab"]
    pairs = " ".join(f"{name}{step}>{name}{step + 1}" for step in range(3) for name in "ab")
    fast = actor("fast", cores=6)
    result = plan(graph(fast, *map(actor, names), edges=pairs), topology_of("alder_lake"))
    clusters: dict[str, set[int]] = {name[0]: set() for name in names}
    for name in names:
        clusters[name[0]] |= {cpu // 4 for cpu in cpus_of(result, name)}
    assert sorted(clusters.values()) == [{3}, {4}]


def test_arm_without_caches_and_with_strange_packages() -> None:
    assert topology_of("graviton").describe().startswith("64 cores, 1 L3, 1 NUMA node")
    assert topology_of("kunpeng").describe().startswith("128 cores, 4 L3s, 4 NUMA nodes")
    kinds = {core.number: core.efficient for core in topology_of("superchip").cores}
    assert [number for number, slow in sorted(kinds.items()) if slow] == [*range(5), *range(10, 15)]


def test_gaps_in_numbers() -> None:
    topology = topology_of("offline")
    assert topology.cpus == tuple(range(4, 21))
    assert {core.node for core in topology.cores if core.number % 2} == {1}
    assert {core.node for core in topology_of("sparse").cores} == {0, 1, 2, 33, 34, 45, 72, 73}


def test_containers() -> None:
    assert topology_of("container").quota == 1.5
    result = plan(SERVICE, topology_of("container"))
    assert {cpu for worker in result.workers for cpu in worker.cores} == {0, 1}
    assert not any(worker.spin for worker in result.workers)
    assert topology_of("container_v1").cpus == (2, 3, 4, 5)
    assert topology_of("container_v1").quota == 2.5


@pytest.mark.parametrize(
    "name", ["interleaved_xeon", "alder_lake", "superchip", "offline", "container", "container_v1"]
)
def test_what_was_recorded_gives_the_same_topology(name: str, tmp_path: Path) -> None:
    machine = record(tmp_path / "machine", machines.ALL[name]())
    count = record_machine(tmp_path / "copy", machine)
    assert count == sum(each.is_file() for each in (tmp_path / "copy").rglob("*"))
    assert read_machine(tmp_path / "copy") == Topology.read(machine)


def test_recording_this_machine(tmp_path: Path) -> None:
    record_machine(tmp_path / "here")
    assert read_machine(tmp_path / "here") == Topology.read()
    status = (tmp_path / "here/proc/self/status").read_text()
    assert status.startswith("Cpus_allowed_list:")
    assert len(status.splitlines()) == 1
    with pytest.raises(MachineError, match="not an empty folder"):
        record_machine(tmp_path / "here")
    with pytest.raises(MachineError, match="holds no recorded machine"):
        read_machine(tmp_path)
    (tmp_path / "here/sys/devices/system/cpu/online").write_text("what")
    (tmp_path / "here/proc/self/status").write_text("Cpus_allowed_list: x-y")
    with pytest.raises(MachineError, match="was not recorded from a machine"):
        read_machine(tmp_path / "here")


@pytest.mark.parametrize("name", machines.ALL)
def test_the_map_holds_every_core_and_every_worker_once(name: str) -> None:
    topology = topology_of(name)
    result = plan(SERVICE, topology)
    numbers = [number for each in stretches(result, topology) for number in each.numbers]
    assert sorted(numbers) == sorted(core.number for core in topology.cores)
    seen: dict[str, set[int]] = {}
    for each in stretches(result, topology):
        for names in each.workers:
            for name in names:
                seen.setdefault(name, set()).update(each.cpus)
    for worker in result.workers:
        assert set(worker.cores) <= seen[worker.name]


def test_the_map_in_words() -> None:
    topology = topology_of("alder_lake")
    rows = map_rows(plan(SERVICE, topology), topology)
    assert rows[0] == ("0", "0", "0,2,4,6", "0-7", "llm[0]")
    assert rows[2] == ("", "", "12-15 (slow)", "", "llm[1]")
    smt = topology_of("epyc")
    both = moved(plan(SMALL, smt), smt, "b", (64,), "moved here")
    both = moved(both, smt, "a", (0,), "moved here")
    assert map_rows(both, smt)[0] == ("0", "0", "0", "0,64", "CPU 0: a; CPU 64: b")
    assert "not used: the CPU quota does not pay for more" in map_text(
        plan(SMALL, topology_of("container")), topology_of("container")
    )


@pytest.mark.parametrize("name", machines.ALL)
def test_the_picture(name: str) -> None:
    topology = topology_of(name)
    result = plan(SERVICE, topology)
    svg = ElementTree.fromstring(picture(result, topology))
    width, height = float(svg.attrib["width"]), float(svg.attrib["height"])
    for each in svg.iter("{http://www.w3.org/2000/svg}rect"):
        assert float(each.attrib["x"]) + float(each.attrib["width"]) <= width
        assert float(each.attrib["y"]) + float(each.attrib["height"]) <= height
    texts = ["".join(each.itertext()) for each in svg.iter("{http://www.w3.org/2000/svg}text")]
    for core in topology.cores:
        assert any(text.split(" (")[0] == f"core {core.number}" for text in texts)
    titles = [each.text for each in svg.iter("{http://www.w3.org/2000/svg}title")]
    for worker in result.workers:
        assert titles.count(worker.name) == len(worker.cores)


def test_names_are_escaped_and_shortened() -> None:
    spec = graph(actor("a<b>&" + "x" * 200))
    svg = picture(plan(spec, topology_of("one_core")), topology_of("one_core"))
    ElementTree.fromstring(svg)
    assert "…" in svg


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_targets(monkeypatch)
    folder, file = record(tmp_path / "epyc", machines.large_epyc()), tmp_path / "plan.svg"
    words = ("plan", "vision.py", "--machine", str(folder), "--picture", str(file))
    text = invoke(*words).stdout
    assert text.startswith("vision on 64 cores, 128 hardware threads")
    assert re.search(r"^0 +0 +0 +0,64 +scale$", text, re.MULTILINE)
    assert "Not pinned: the supervisor" in text
    ElementTree.parse(file)
    document = json.loads(invoke(*words, "--format", "json").stdout)
    assert len(document["map"]) == 64
    assert document["map"][0]["workers"] == ["scale"]
    assert Topology.from_plain(document["topology"]) == read_machine(folder)
    assert Plan.from_plain(document).to_plain() == {key: document[key] for key in ("graph", "machine", "workers")}


def test_the_command_records(tmp_path: Path) -> None:
    result = invoke("plan", "--record", str(tmp_path / "here"), "--format", "json")
    assert json.loads(result.stdout)["files"] > 3
    assert invoke("plan", "--record", str(tmp_path / "here")).exit_code == 1


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (("plan",), 2, "name a graph"),
        (("plan", "vision.py", "--machine", "/nowhere"), 1, "/nowhere holds no recorded machine"),
        (("plan", "vision.py", "--picture", "/tmp/plan.png"), 2, "is no .svg"),
        (("plan", "vision", "--running", "--machine", "/nowhere"), 2, "leave out --machine"),
    ],
)
def test_mistakes(monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], status: int, text: str) -> None:
    fake_targets(monkeypatch)
    result = invoke(*words)
    assert result.exit_code == status
    assert text in result.stderr
