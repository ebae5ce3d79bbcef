"""Edges: fan-out, replicas, streams along edges, what happens when they are full."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import slabwire
from slabwire import Graph
from stage import Collects, Echo, Emits, Passes, Streams
from waiting import wait_until


@pytest.fixture(autouse=True)
def run_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(tmp_path / "run"))


def seen(path: Path) -> list[int]:
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def test_one_block_goes_to_many_readers(tmp_path: Path) -> None:
    graph = Graph("fan")
    source = graph.add(Echo)
    readers = [graph.add(Passes, name=f"reader{i}") for i in range(3)]
    for each in readers:
        graph.connect(source.double, each.on)
    graph.expose(source.double, reply=readers[2].on)
    with graph.run() as running:
        sent = np.arange(200_000, dtype=np.float32)
        for _ in range(10):
            assert np.array_equal(running.client.call("echo.double", sent), sent * 2)
        status = running.status()
        wait_until(lambda: all(edge["waiting"] == 0 for edge in running.status()["edges"]))
    (worker,) = (each for each in status["workers"] if each["name"] == "echo")
    assert worker["slab_bytes"] < 4 * (sent.nbytes + (1 << 16)) + (1 << 20), (
        "each message is held once, not once a reader"
    )


def test_replicas_share_the_work(tmp_path: Path) -> None:
    graph = Graph("replicas")
    graph.expose(graph.add(Echo, replicas=2).who)
    with graph.run() as running:
        assert {running.client.call("echo.who")[0] for _ in range(20)} == {"echo[0]", "echo[1]"}


def test_a_stream_goes_along_edges_in_order(tmp_path: Path) -> None:
    graph = Graph("streaming")
    source, passes, echo = graph.add(Streams), graph.add(Passes, replicas=2), graph.add(Echo)
    graph.connect(source.frames, passes.on)
    graph.connect(passes.on, echo.double)
    graph.expose(source.frames)
    with graph.run() as running:
        frames = list(running.client.stream("streams.frames", 200, 5000))
        assert [int(frame[0]) for frame in frames] == [i % 251 * 2 % 256 for i in range(200)]
        stopped = running.client.stream("streams.frames", 100_000, 5000)
        assert int(next(stopped)[0]) == 0
        stopped.close()
        wait_until(lambda: all(a["in_flight"] == 0 for w in running.status()["workers"] for a in w["actors"]))


def full(tmp_path: Path, when_full: str) -> tuple[Graph, Path]:
    """A quick sender before a receiver that stands still until told to go."""
    path = tmp_path / "seen"
    graph = Graph("full")
    emits, slow = graph.add(Emits), graph.add(Collects, path=str(path))
    graph.connect(emits.out, slow.slowly, capacity=4, when_full=when_full)  # type: ignore[arg-type]
    graph.expose(emits.go)
    return graph, path


def sender(running: Any) -> dict[str, Any]:
    (worker,) = (each for each in running.status()["workers"] if each["name"] == "emits")
    return dict(worker["actors"][0])


OUTCOMES = ("blocked", "rejected", "dropped_newest", "dropped_oldest", "expired", "refused")


def edge_of(running: Any) -> dict[str, Any]:
    (edge,) = running.status()["edges"]
    return dict(edge)


def outcomes(running: Any) -> dict[str, int]:
    """What became of messages that found the edge full, but for what never happened."""
    return {name: count for name in OUTCOMES if (count := edge_of(running)[name])}


def test_a_full_edge_blocks_its_sender_and_loses_nothing(tmp_path: Path) -> None:
    graph, path = full(tmp_path, "block")
    with graph.run() as running:
        call = running.client.stream("emits.go", 1, times=50)
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(next, call)
            wait_until(lambda: sender(running)["outbox"] == 46)
            assert sender(running)["sent"] == 4
            assert (edge_of(running)["full"], edge_of(running)["waiting"]) == (1, 4)
            times = ("oldest_s", "blocked_s", "blocked_for_s")
            before = edge_of(running)
            later = wait_until(lambda: now if (now := edge_of(running))["blocked_s"] > before["blocked_s"] else None)
            assert all(later[each] > before[each] > 0 for each in times)  # also while it is blocked
            Path(f"{path}.go").touch()
            assert first.result() == 100
        wait_until(lambda: len(seen(path)) == 50)
        edge = edge_of(running)
        assert edge["sent"] == 50
        assert 1 <= edge["high_water"] <= 4
        assert edge["blocked_s"] >= later["blocked_s"]
        assert (edge["blocked_for_s"], edge["oldest_s"]) == (0, 0)
        assert set(outcomes(running)) == {"blocked"}
        assert 1 <= edge["blocked"] <= 46
    assert seen(path) == [100 + i for i in range(50)]


def test_a_blocked_message_gives_up_at_its_deadline(tmp_path: Path) -> None:
    graph, path = full(tmp_path, "block")
    with graph.run() as running:
        with pytest.raises(slabwire.DeadlineExceeded):
            running.client.call("emits.go", 1, times=50, timeout_s=0.3)
        wait_until(lambda: sender(running)["dropped"] == 46)
        assert outcomes(running) == {"expired": 46}
        assert edge_of(running)["blocked_s"] >= 0.1
        Path(f"{path}.go").touch()


def test_a_full_edge_rejects(tmp_path: Path) -> None:
    graph, path = full(tmp_path, "reject")
    with graph.run() as running:
        with pytest.raises(slabwire.EdgeFull, match=r"emits.out -> collects.slowly is full: 4"):
            running.client.call("emits.go", 1, times=10)
        Path(f"{path}.go").touch()
        wait_until(lambda: len(seen(path)) == 4 and not edge_of(running)["waiting"])
        assert running.client.call("emits.go", 2) == 200
        assert outcomes(running) == {"rejected": 6}


@pytest.mark.parametrize(
    ("when_full", "kept"), [("drop_newest", [0, 1, 2, 3]), ("drop_oldest", [0, 1, 2, 3, 16, 17, 18, 19])]
)
def test_a_full_edge_drops_what_its_policy_says(tmp_path: Path, when_full: str, kept: list[int]) -> None:
    graph, path = full(tmp_path, when_full)
    with graph.run() as running:
        with pytest.raises(slabwire.EdgeFull):
            running.client.call("emits.go", 0, times=20)
        wait_until(lambda: sender(running)["dropped"] == 20 - len(kept))
        dropped = {when_full.replace("drop", "dropped"): 20 - len(kept)}
        Path(f"{path}.go").touch()
        wait_until(lambda: len(seen(path)) == len(kept))
        assert outcomes(running) == dropped
    assert seen(path) == kept


class Repeats(slabwire.Actor):
    def each(self, n: int) -> Iterator[int]:
        yield from (n * 10 + i for i in range(2))


def test_a_stream_of_streams_is_one_stream(tmp_path: Path) -> None:
    graph = Graph("nested")
    streams, repeats = graph.add(Streams), graph.add(Repeats)
    graph.connect(streams.upto, repeats.each)
    graph.expose(streams.upto)
    with graph.run() as running:
        assert sorted(running.client.stream("streams.upto", 3)) == [0, 1, 10, 11, 20, 21]


class Tells(slabwire.Actor):
    """Answers late, after a side branch has long ended."""

    aside = slabwire.Output(int)

    def tell(self, n: int) -> int:
        self.emit("aside", n)
        while not Path(f"{self.path}.ended").exists():
            time.sleep(0.002)
        return n + 1

    def __init__(self, path: str) -> None:
        self.path = path


class Ends(slabwire.Actor):
    def __init__(self, path: str) -> None:
        self.path = path

    def end(self, n: int) -> None:
        Path(f"{self.path}.ended").touch()


def test_the_none_of_a_side_branch_is_no_answer(tmp_path: Path) -> None:
    graph = Graph("aside")
    tells, ends = graph.add(Tells, path=str(tmp_path / "x")), graph.add(Ends, path=str(tmp_path / "x"))
    graph.connect(tells.aside, ends.end)
    graph.expose(tells.tell, reply=tells.tell)
    with graph.run() as running:
        assert [running.client.call("tells.tell", n) for n in range(20)] == list(range(1, 21))
