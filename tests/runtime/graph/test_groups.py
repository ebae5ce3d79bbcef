"""Groups of supervision: as they are written, and as they live."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgpack
import pytest

from slabwire import Actor, Graph, GraphError, Output
from slabwire.runtime.spec import GroupSpec, Strategy, graph_from_plain
from stage import Collects, Echo, Patient
from waiting import wait_until


def a_graph(*names: str, **workers: str) -> tuple[Graph, list[Any]]:
    graph = Graph("groups")
    return graph, [graph.add(Echo, name=name, worker=workers.get(name)) for name in names]


def test_groups_travel_with_the_graph() -> None:
    graph, (a, b, c) = a_graph("a", "b", "c")
    inner = graph.supervise("inner", [a, b], strategy="rest_for_one", intensity=3, within_s=60)
    graph.supervise("outer", [inner, c], strategy="one_for_all")
    spec = graph.validate()
    assert spec.groups == (
        GroupSpec("inner", ("a", "b"), "rest_for_one", 3, 60.0),
        GroupSpec("outer", ("inner", "c"), "one_for_all", 10, 30.0),
    )
    assert graph_from_plain(msgpack.unpackb(msgpack.packb(spec.to_plain()))) == spec


def test_groups_are_boxes_in_the_picture() -> None:
    graph, (a, b, c, _) = a_graph("a", "b", "c", "d")
    graph.supervise("outer", [graph.supervise("inner", [a, b], strategy="one_for_all"), c])
    picture = graph.mermaid()
    words = [line.strip().partition("[")[0] for line in picture.splitlines()[1:10]]
    first = words[0][:-1]
    inside = f"subgraph g1 subgraph g1_0 {first}0 {first}1 end {first}2 end".split()
    assert words[0] == f"{first}3"  # d is in no group
    assert " ".join(words[1:8]).split() == inside
    assert 'g1_0["inner: one_for_all"]' in picture


def test_what_cannot_be_meant_is_refused_at_once() -> None:
    graph, (a, b) = a_graph("a", "b")
    graph.supervise("g", [a])
    other, (stranger,) = a_graph("a")
    for members, settings, complaint in (
        ([a], {}, "'a' is in group 'g' already, so it cannot be in 'h' too"),
        ([b, b], {}, "'b' is named twice"),
        ([], {}, "group 'h' has no members"),
        (["b"], {}, "expected nodes and groups of this graph, got 'b'"),
        (5, {}, "takes a list of nodes and groups, got 5"),
        ([stranger], {}, "'a' belongs to graph 'groups', not to this one"),
        ([b], {"strategy": "one_for_al"}, r"strategy='one_for_al' must be one of .*did you mean 'one_for_all'"),
        ([b], {"intensity": -1}, "intensity=-1 must be a whole number of at least 0"),
        ([b], {"within_s": 0}, "within_s=0 must be a number of seconds above 0"),
    ):
        with pytest.raises(GraphError, match=complaint):
            graph.supervise("h", members, **settings)  # type: ignore[arg-type]
    with pytest.raises(GraphError, match="there is a group 'g' already"):
        graph.supervise("g", [b])
    with pytest.raises(GraphError, match="must consist of letters"):
        graph.supervise("no spaces", [b])
    assert other.validate().groups == ()


def test_a_worker_is_not_split_between_groups() -> None:
    graph, (a, _, c) = a_graph("a", "b", "c", a="shared", b="shared")
    graph.supervise("g", [a])
    with pytest.raises(GraphError, match=r"'a' and 'b' share worker 'shared'.*'a' is in group 'g' and 'b' is in none"):
        graph.validate()
    graph, (a, b, c) = a_graph("a", "b", "c", a="shared", b="shared")
    graph.supervise("shared", [a, b])
    graph.supervise("c", [c])
    with pytest.raises(GraphError) as caught:
        graph.validate()
    assert [each.partition(";")[0] for each in caught.value.problems] == [
        "group 'shared' has the name of a worker",
        "group 'c' has the name of an actor",
    ]


# -- alive -----------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def run_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(tmp_path / "run"))


def workers(running: Any) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in running.status()["workers"]}


def call_until(stop: threading.Event, client: Any, port: str) -> int:
    done = 0
    while not stop.wait(0.001):
        assert client.call(port, done) == done
        done += 1
    return done


def test_neighbours_are_restarted_in_their_group_and_no_call_is_lost() -> None:
    graph, (a, b, c, d) = a_graph("a", "b", "c", "d")
    graph.supervise("outer", [graph.supervise("inner", [a, b], strategy="rest_for_one", intensity=1), c])
    graph.expose(a.echo, b.echo, c.echo, d.echo)

    def killed(running: Any, name: str, changed: str) -> None:
        before = workers(running)
        os.kill(before[name]["pid"], signal.SIGKILL)
        restarts = {each: before[each]["restarts"] + (each in changed) for each in before}
        wait_until(lambda: {each["name"]: each["restarts"] for each in running.status()["workers"]} == restarts)
        wait_until(lambda: all(each["state"] == "ready" for each in running.status()["workers"]))

    with graph.run() as running, ThreadPoolExecutor(4) as pool:
        stop = threading.Event()
        calls = [pool.submit(call_until, stop, running.client, f"{name}.echo") for name in "abcd"]
        assert {name: each["groups"] for name, each in workers(running).items()} == {
            "a": ["inner", "outer"],
            "b": ["inner", "outer"],
            "c": ["outer"],
            "d": [],
        }
        killed(running, "b", "b")  # named last
        killed(running, "a", "ab")  # once too often for the inner group: the outer one restarts all of it
        killed(running, "a", "ab")  # with which it has begun afresh
        killed(running, "c", "c")
        stop.set()
        assert all(each.result() for each in calls)


def test_who_fails_at_the_top_ends_the_graph() -> None:
    graph, (a, b) = a_graph("a", "b")
    graph.supervise("fragile", [a, b], intensity=0)
    with graph.run() as running:
        os.kill(workers(running)["b"]["pid"], signal.SIGKILL)
        assert running.wait() == 1


def test_who_is_restarted_for_others_is_not_to_blame(tmp_path: Path) -> None:
    graph = Graph("blameless")
    patient = graph.add(Patient, folder=str(tmp_path), max_attempts=1)
    echo = graph.add(Echo)
    graph.supervise("both", [patient, echo], strategy="one_for_all")
    graph.expose(patient.coroutine, echo.who)
    with graph.run() as running, ThreadPoolExecutor(1) as pool:
        call = pool.submit(running.client.call, "patient.coroutine", "x", timeout_s=None)
        for attempt in range(3):
            wait_until(lambda: workers(running)["patient"]["actors"][0]["in_flight"])
            wait_until((tmp_path / "patient-began").exists)
            (tmp_path / "patient-began").unlink()
            pid = running.client.call("echo.who")[1]
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda: running.client.call("echo.who")[1] != pid)  # noqa: B023 - within this turn
            wait_until(lambda: workers(running)["patient"]["restarts"] == attempt + 1)  # noqa: B023
        (tmp_path / "go").touch()
        assert call.result() == ["x", 4]


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(3))
def test_deaths_at_random_in_nested_groups(seed: int) -> None:
    """Nobody is forgotten, and no call is lost or answered wrongly."""
    dice = random.Random(seed)
    graph = Graph("nested")
    nodes = {name: graph.add(Echo, name=name, max_attempts=10_000) for name in "abcdefg"}

    def group(name: str, members: list[Any]) -> Any:
        strategies: list[Strategy] = ["one_for_one", "rest_for_one", "one_for_all"]
        strategy = dice.choice(strategies)
        intensity = dice.choice([1, 3]) if name != "top" else 10_000
        return graph.supervise(name, members, strategy=strategy, intensity=intensity, within_s=2)

    left, right = group("left", [nodes["b"], nodes["a"]]), group("right", [nodes["c"], nodes["d"]])
    group("top", [left, group("middle", [right, nodes["e"]]), nodes["f"]])
    graph.supervise("alone", [nodes["g"]], intensity=10_000)
    graph.expose(*(node.echo for node in nodes.values()))
    with graph.run() as running, ThreadPoolExecutor(len(nodes)) as pool:
        stop = threading.Event()
        calls = [pool.submit(call_until, stop, running.client, f"{name}.echo") for name in nodes]
        until = time.monotonic() + 20
        while time.monotonic() < until:
            alive = [each["pid"] for each in running.status()["workers"] if each["pid"]]
            for pid in dice.sample(alive, min(len(alive), dice.choice([1, 1, 1, 2]))):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, dice.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV]))
            time.sleep(dice.uniform(0.0, 0.3))  # a random moment, nothing that is waited for
        stop.set()
        print([each.result() for each in calls], [each["restarts"] for each in running.status()["workers"]])
        wait_until(lambda: all(each["state"] == "ready" for each in running.status()["workers"]))
        assert [running.client.call(f"{name}.echo", name) for name in nodes] == list(nodes)


class LastWords(Actor):
    out = Output(int)

    def __init__(self, n: int) -> None:
        self.n = n

    def word(self, n: int) -> None:
        self.emit("out", n + 1)

    def on_stop(self) -> None:
        self.emit("out", self.n)


def test_what_a_source_sends_last_is_handled(tmp_path: Path) -> None:
    graph = Graph("last")
    first, second = graph.add(LastWords, name="first", n=1), graph.add(LastWords, name="second", n=10)
    collects = graph.add(Collects, path=str(tmp_path / "seen"))
    graph.connect(first.out, second.word)
    graph.connect(second.out, collects.take)
    with graph.run():
        pass
    assert (tmp_path / "seen").read_text().split() == ["2", "10"]
