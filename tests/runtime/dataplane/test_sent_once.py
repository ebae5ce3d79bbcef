"""What was sent is not sent again by a successor, also where one input's outputs leave by several ways."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from kill_stage import Forwards, Lingers, Sink, Streams, checksum, letter
from points import Strikes
from slabwire import Graph
from slabwire.runtime.clients.control import Control
from slabwire.runtime.control.verbs import Status, StopGraph
from waiting import wait_until, worker_of

LETTERS = 20


@pytest.fixture(autouse=True)
def run_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(tmp_path / "run"))


def notes(path: Path) -> list[int]:
    return [int(line.split()[0]) for line in path.read_text().splitlines()]


def killed(running: Any, name: str) -> None:
    pid = worker_of(running, name)["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: worker_of(running, name)["pid"] not in (0, pid))


def test_what_has_left_by_one_way_and_waits_at_another_is_not_sent_twice(tmp_path: Path) -> None:
    """The way that has room has forgotten by its ring what went along it; the table has not."""
    graph = Graph("ways")
    forwards = graph.add(Forwards)
    sinks = [graph.add(Sink, name=name, path=str(tmp_path / name)) for name in ("first", "second")]
    for sink in sinks:
        graph.connect(forwards.coroutine, sink.take, capacity=4)
    graph.expose(forwards.coroutine, reply=sinks[1].take)
    with graph.run() as running, ThreadPoolExecutor(LETTERS) as pool:
        stopped = worker_of(running, "second")["pid"]
        os.kill(stopped, signal.SIGSTOP)
        calls = [
            pool.submit(running.client.call, "forwards.coroutine", **letter(number), timeout_s=None)
            for number in range(LETTERS)
        ]
        wait_until(lambda: len(notes(tmp_path / "first")) == LETTERS)
        killed(running, "forwards")
        os.kill(stopped, signal.SIGCONT)
        assert sorted(each.result()["n"] for each in calls) == list(range(LETTERS))
        wait_until(lambda: all(edge["waiting"] == 0 for edge in running.status()["edges"]))
    assert sorted(notes(tmp_path / "first")) == sorted(notes(tmp_path / "second")) == list(range(LETTERS))


@pytest.mark.parametrize(("port", "along_an_edge"), [("once", False), ("again", True), ("slowly", True)])
def test_a_stream_that_was_sent_whole_is_whole(tmp_path: Path, port: str, along_an_edge: bool) -> None:
    """Its process dies when its end is on the way, and before the table says so."""
    strikes = Strikes.plan(tmp_path / "strikes", [("published", int(signal.SIGKILL), LETTERS + 1)])
    graph = Graph("whole")
    streams = graph.add(Streams, strikes=str(strikes.folder))
    sink = graph.add(Sink, path=str(tmp_path / "sink"))
    if along_an_edge:
        graph.connect(getattr(streams, port), sink.take)
    graph.expose(getattr(streams, port))
    with graph.run() as running:
        items = list(running.client.stream(f"streams.{port}", 0, LETTERS))
        wait_until(strikes.is_over)
        assert [each["n"] for each in items] == list(range(LETTERS))
        assert all(checksum(each["n"], each["x"]) == each["check"] for each in items)
        published = wait_until(lambda: _when_redelivered(running))
    assert published == LETTERS, "the one that was struck at counted for nothing, and nothing was sent after it"


def _when_redelivered(running: Any) -> int:
    """What was sent in all, when a successor has seen its predecessor's input out."""
    (actor,) = worker_of(running, "streams")["actors"]
    return int(actor["sent"]) if actor["redelivered"] and not actor["in_flight"] else 0


def test_a_graph_that_drains_waits_for_what_a_successor_is_still_to_handle(tmp_path: Path) -> None:
    graph = Graph("drains")
    graph.expose(graph.add(Lingers, folder=str(tmp_path)).linger)
    with graph.run() as running, ThreadPoolExecutor(2) as pool:
        client = running.client
        call = pool.submit(client.call, "lingers.linger", 7, timeout_s=None)
        wait_until(lambda: worker_of(running, "lingers")["actors"][0]["in_flight"])
        os.kill(worker_of(running, "lingers")["pid"], signal.SIGKILL)
        wait_until((tmp_path / "start-1").exists)
        with Control("drains") as control:
            control.request(StopGraph())
            wait_until(lambda: control.request(Status())["state"] == "draining")
            for _ in range(50):
                assert control.request(Status())["state"] == "draining"
        (tmp_path / "go").touch()
        (tmp_path / "end").touch()
        assert call.result() == 7
