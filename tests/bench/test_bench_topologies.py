"""The topologies of the data plane: that each runs, measures all that it names, and says so. Never how fast it is."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from slabwire.bench.topologies.data_plane import TOPOLOGIES

ARGUMENTS = {
    "ping_pong": ("--sizes", "64,64KiB"),
    "forward": ("--sizes", "64,16KiB"),
    "actor_call": ("--sizes", "64,16KiB"),
}
MULTIPROCESSING = {"pipe", "queue"}


def slabwire(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "slabwire", *arguments]


@cache
def run(topology: str, *more: str) -> dict[str, Any]:
    arguments = (*ARGUMENTS.get(topology, ()), *more, "--quick", "--format", "json", "--seed", "3")
    done = subprocess.run(slabwire("bench", topology, *arguments), capture_output=True, text=True, check=True)
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def contestants(topology: str, *more: str) -> set[str]:
    return {each["contestant"] for each in run(topology, *more)["results"]}


def installed_peers() -> set[str]:
    return {
        name for name, module in (("iceoryx2", "iceoryx2"), ("zenoh", "zenoh"), ("ray", "ray")) if find_spec(module)
    }


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_each_runs_and_says_what_it_measured(topology: str) -> None:
    document = run(topology)
    assert document["topology"] == topology
    assert (document["seed"], document["quick"]) == (3, True)
    assert document["machine"]["kernel"].startswith("Linux")
    assert {"numpy", "pyzmq", "slabwire"} <= set(document["machine"]["versions"])
    for each in document["results"]:
        assert each["verified"] >= each["samples"] > 0 or topology in ("one_to_one", "scaling", "false_sharing")
        assert len(each["rounds_us"]) == document["rounds"] == 2
        assert each["median_us"] == pytest.approx(median(each["rounds_us"]))
        assert each["median_us"] > 0
    for bar in document["bars"]:
        assert isinstance(bar["is_met"], bool)
        assert bar["value"] > 0


def test_ping_pong_sets_all_ways_beside_each_other() -> None:
    everybody = {"bare_lane", "message", "loaned", "client_call", "pyzmq", *MULTIPROCESSING, *installed_peers()}
    found = {(each["x"], each["contestant"]) for each in run("ping_pong")["results"]}
    assert found == {(size, name) for size in (64, 65536) for name in everybody}


def test_features_are_added_one_by_one() -> None:
    names = [each["contestant"] for each in run("ping_pong", "--features")["results"]]
    assert names[:6] == ["record", "bare_lane", "header", "deadline", "inflight", "message"]


def test_one_to_one_counts_what_arrives() -> None:
    document = run("one_to_one")
    assert contestants("one_to_one") == {
        "bare_lane",
        "actors",
        "pyzmq",
        *MULTIPROCESSING,
        *(installed_peers() - {"ray"}),
    }
    for each in document["results"]:
        assert each["a_second"] == pytest.approx(1e6 / each["median_us"])


def test_fan_out_holds_a_message_once() -> None:
    held = run("fan_out")["figures"]["held"]
    assert {readers: each["out"] for readers, each in held.items()} == {"1": 1, "2": 1, "4": 1}
    assert all(each["pss"] < each["rss"] for each in held.values())
    assert [each["x"] for each in run("fan_out")["results"]] == [1, 2, 4]


def test_forward_compares_with_a_copy() -> None:
    assert contestants("forward") == {"forwarded", "copied"}


def test_parked_compares_with_a_bare_eventfd() -> None:
    assert {"eventfd", "bell", "bare_lane", "client_call"} <= contestants("parked")
    assert [bar["most"] for bar in run("parked")["bars"]] == [1.5, 2.0]


def test_actor_call_names_who_is_left_out() -> None:
    document, peers = run("actor_call"), {name for name in ("ray", "xoscar") if find_spec(name)}
    assert contestants("actor_call") == {"client_call", *peers}
    assert set(document["left_out"]) == {"ray", "xoscar"} - peers


def test_async_calls_tells_the_cpu_time_of_both() -> None:
    document, peers = run("async_calls"), {name for name in ("ray", "xoscar") if find_spec(name)}
    assert contestants("async_calls") == {"async_client", "client", *peers}
    figures = ("time", "CPU of the client", "CPU of the worker")
    assert {each["case"] for each in document["results"]} == {
        f"{count} in flight: {figure}" for count in (1, 8, 64) for figure in figures
    }


def test_idle_counts_every_process() -> None:
    figures = run("idle")["figures"]
    assert figures["actors"] == 20
    assert "supervisor" in figures["shares"]
    assert sum(figures["shares"].values()) == pytest.approx(run("idle")["bars"][0]["value"])


def test_false_sharing_checks_every_layout() -> None:
    figures = run("false_sharing")["figures"]
    assert {"bell", "inflight", "lane", "slab", "stats"} <= set(figures["layouts"])
    assert list(figures["times_apart"].values())[-1] == 1.0


def test_scaling_goes_by_numbers_and_by_edges() -> None:
    found = {(each["contestant"], each["x"]) for each in run("scaling")["results"]}
    assert {("edges", each) for each in (1, 4, 16, 64)} < found
    assert {("bare_lane", 10), ("actors", 10), ("bare_lane", 10_000)} < found


def test_the_table_for_people_and_the_files(tmp_path: Path) -> None:
    files = ("--output", str(tmp_path / "out.json"))
    done = subprocess.run(
        slabwire("bench", "false_sharing", "--quick", *files), capture_output=True, text=True, check=True
    )
    assert "one line of 64 bytes" in done.stdout
    assert "samples each, in 2 interleaved rounds" in done.stdout
    assert json.loads((tmp_path / "out.json").read_text())["topology"] == "false_sharing"


def test_a_plot_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    # In a process of its own: matplotlib keeps its fonts open.
    subprocess.run([sys.executable, "-c", DRAW, str(tmp_path)], check=True)
    for kind in ("lines", "bars"):
        assert (tmp_path / f"{kind}1.svg").read_bytes() == (tmp_path / f"{kind}2.svg").read_bytes()
        assert (tmp_path / f"{kind}1.png").read_bytes().startswith(b"\x89PNG")


DRAW = """
import sys
from pathlib import Path
from slabwire.bench.harness.measure import Case, Cell, Measurement
from slabwire.bench.harness.plot import draw
from slabwire.bench.harness.report import Report

folder = Path(sys.argv[1])
for kind, sizes in (("lines", (64, 4096)), ("bars", (64,))):
    results = {Cell(Case(str(x), x), name): Measurement([[float(x)]]) for x in sizes for name in ("ours", "theirs")}
    report = Report("ping_pong", "a round trip", results, {"ours": "message", "theirs": "PAIR"})
    for name in ("1.svg", "2.svg", "1.png"):
        draw(report, folder / (kind + name))
"""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_nothing(number: int, status: int) -> None:
    process = subprocess.Popen(
        slabwire("bench", "parked", "--rounds", "1000"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while len(children.read_text().split()) < 5:  # a supervisor and four echoes
        assert process.poll() is None
    process.send_signal(number)
    out, errors = process.communicate()
    assert process.returncode == status
    assert "Traceback" not in out + errors


@pytest.mark.long
def test_placement_sets_cores_pinning_and_pools_beside_each_other() -> None:
    document = run("placement")
    found = {(each["case"].split(",")[0], each["contestant"]) for each in document["results"]}
    assert found == {
        *(("two actors", name) for name in ("two_cores", "one_core", "not_pinned", "one_worker")),
        *(("two models", name) for name in ("planned_pools", "own_pools")),
        *(("one model", name) for name in ("pinned_pool", "free_pool", "own_pool")),
    }
    assert all(each["verified"] >= each["samples"] > 0 for each in document["results"])
