"""Actors that work outside of any input: what their tasks die of is told, and what they send waits for room."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import slabwire
from slabwire import Graph
from slabwire.runtime.clients.control import Control
from slabwire.runtime.control.verbs import Metrics
from slabwire.runtime.telemetry.metrics import metrics_text
from sources import Asked, Careful, Careless, Fails, Hasty, Rows, Takes, Threaded, number
from waiting import wait_until, worker_of


@pytest.fixture(autouse=True)
def run_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(tmp_path / "run"))
    return tmp_path / "run"


def actor_of(running: Any, name: str) -> dict[str, Any]:
    return next(actor for each in running.status()["workers"] for actor in each["actors"] if actor["name"] == name)


@contextmanager
def rows_to_takes(source: type = Rows, capacity: int = 4, here: bool = False, **arguments: Any) -> Iterator[Any]:
    graph = Graph("rows")
    settings = {each: arguments.pop(each) for each in ("seconds", "keep") if each in arguments}
    memory = {"memory_bytes": arguments.pop("memory_bytes")} if "memory_bytes" in arguments else {}
    rows, takes = graph.add(source, name="rows", **memory, **arguments), graph.add(Takes, **settings)
    graph.connect(rows.rows, takes.take, capacity=capacity)
    graph.expose(takes.result)
    with graph.run(in_process=here, drain_timeout_s=30) as running:
        yield running


# -- what dies -------------------------------------------------------------------------------------------------------


def test_what_on_start_began_and_that_dies_is_a_crash_of_its_actor(run_directory: Path) -> None:
    ways = ["kept", "dropped", "ensured", "own_context", "timer", "base", "group"]
    graph = Graph("fails")
    graph.expose(*(graph.add(Fails, name=way, way=way).pid for way in ways))
    with graph.run() as running:
        for way in ways:
            worker = wait_until(lambda: (each := worker_of(running, way))["restarts"] and each)  # noqa: B023
            assert f"ended with status 3: {way}: " in worker["last_exit"]
            wait_until(lambda: actor_of(running, way)["failed"])  # noqa: B023
            log = (run_directory / "fails" / "logs" / f"{way}.log").read_text()
            assert "Traceback (most recent call last)" in log
            assert "its task " in log or "Exception in callback" in log


def test_a_temporary_source_that_dies_is_not_started_again() -> None:
    graph = Graph("fails")
    fails = graph.add(Fails, way="kept", restart="temporary")
    graph.expose(fails.pid)
    with graph.run() as running:
        worker = wait_until(lambda: (each := worker_of(running, "fails"))["state"] == "stopped" and each)
        assert worker["restarts"] == 0
        assert r"its task Fails._read died: Broken: caf\udce9" in worker["last_exit"]


def test_what_an_author_takes_himself_is_no_failure() -> None:
    graph = Graph("careful")
    careful = graph.add(Careful)
    graph.expose(careful.waits, careful.pid)
    with graph.run() as running:
        pid = running.client.call("careful.pid", timeout_s=30)
        assert running.client.call("careful.waits", timeout_s=30)
        assert running.client.call("careful.pid", timeout_s=30) == pid
        assert actor_of(running, "careful")["failed"] == 0


@pytest.mark.parametrize("here", [False, True])
def test_what_a_handler_began_and_nobody_awaits_is_logged_and_counted_and_ends_nothing(here: bool) -> None:
    graph = Graph("careless")
    careless = graph.add(Careless)
    graph.expose(careless.keeps, careless.drops, careless.thread, careless.pid)
    with graph.run(in_process=here) as running:
        client = running.client
        pid = client.call("careless.pid", timeout_s=30)
        for failed, port in enumerate(("keeps", "drops"), 2):  # one is of `on_start`'s task
            assert client.call(f"careless.{port}", timeout_s=30) == 1
            wait_until(lambda: client.call("careless.pid") and actor_of(running, "careless")["failed"] == failed)  # noqa: B023
        if not here:  # whose threads are the program's
            client.call("careless.thread", timeout_s=30)
            wait_until(lambda: actor_of(running, "careless")["failed"] == 4)
        assert client.call("careless.pid", timeout_s=30) == pid


def test_in_one_process_a_dead_source_is_told_to_whoever_drives_the_graph() -> None:
    graph = Graph("fails")
    fails = graph.add(Fails, way="kept")
    graph.expose(fails.pid)
    with graph.run(in_process=True) as running:
        with pytest.raises(slabwire.HandlerError, match=r"its task Fails\._read died: Broken") as caught:
            running.wait(30)
        assert type(caught.value.__cause__).__name__ == "Broken"
        assert running.client.call("fails.pid", timeout_s=30) == running.pid


# -- what waits ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("here", [False, True])
@pytest.mark.parametrize("verb", ["send", "emit"])
def test_a_source_goes_as_slowly_as_its_edge(verb: str, here: bool) -> None:
    settings: dict[str, Any] = {"verb": verb, "nbytes": 1 << 20, "seconds": 0.002, "memory_bytes": 16 << 20}
    with rows_to_takes(here=here, count=300, **settings) as running:
        most = 0
        while running.client.call("takes.result", timeout_s=30)[0] < 300:
            rows = worker_of(running, "here" if here else "rows")
            most = max(most, rows["slab_bytes"])
        assert running.client.call("takes.result", timeout_s=30) == [300, 0]
        rows = actor_of(running, "rows")
        assert most <= 16 << 20
        assert rows["begun"] == 300
        assert rows["failed"] == 0
        assert here or rows["busy_s"] > 0
        edge = running.status()["edges"][0]
        assert edge["high_water"] <= 4


def test_copies_wait_for_memory_and_what_never_fits_is_an_error() -> None:
    # What the reader keeps leaves room for less than the edge would take.
    settings: dict[str, Any] = {"verb": "send", "copies": True, "nbytes": 1 << 20, "memory_bytes": 8 << 20}
    with rows_to_takes(count=100, capacity=64, keep=3, **settings) as running:
        wait_until(lambda: running.client.call("takes.result", timeout_s=30)[0] == 100)
        assert running.client.call("takes.result", timeout_s=30)[1] == 0
        assert worker_of(running, "rows")["restarts"] == 0
    with rows_to_takes(count=1, **{**settings, "nbytes": 16 << 20}) as running:
        worker = wait_until(lambda: (each := worker_of(running, "rows"))["restarts"] and each)
        assert "OutOfMemory: a block of " in worker["last_exit"]


def test_who_emits_without_an_await_is_told_of_send() -> None:
    with rows_to_takes(Hasty, count=50, verb="emit", nbytes=100, seconds=0.01) as running:
        worker = wait_until(lambda: (each := worker_of(running, "rows"))["restarts"] and each)
        assert "EdgeFull: rows.rows: 4 messages emitted outside of any input wait for room" in worker["last_exit"]
        assert "await self.send" in worker["last_exit"]


def test_a_source_that_is_shown_waits_in_send_and_ends_with_the_drain() -> None:
    with rows_to_takes(count=1 << 40, verb="send", nbytes=1 << 10, seconds=0.01) as running:
        wait_until(lambda: actor_of(running, "rows")["outbox"] == 1)
        wait_until(lambda: running.status()["edges"][0]["blocked"] > 3)
    # It has ended before its 30 s, or the test's own time would be over.


def test_a_source_begins_anew_with_its_worker() -> None:
    with rows_to_takes(count=1 << 40, verb="send", nbytes=1 << 10, seconds=0.001) as running:
        wait_until(lambda: running.client.call("takes.result", timeout_s=30)[0] > 20)
        os.kill(worker_of(running, "rows")["pid"], 9)
        wait_until(lambda: worker_of(running, "rows")["restarts"] == 1)
        before = running.client.call("takes.result", timeout_s=30)[0]
        wait_until(lambda: running.client.call("takes.result", timeout_s=30)[0] > before + 50)


@pytest.mark.parametrize("here", [False, True])
def test_a_handler_may_send_too(here: bool) -> None:
    graph = Graph("asked")
    asked, numbers = graph.add(Asked), graph.add(number)
    graph.connect(asked.rows, numbers, capacity=2)
    graph.expose(asked.many, asked.begin)
    with graph.run(in_process=here) as running:
        assert running.client.call("asked.many", 100, timeout_s=30) == 0
        wait_until(lambda: actor_of(running, "number")["handled"] == 100)
        running.client.call("asked.begin", 100, timeout_s=30)
        wait_until(lambda: actor_of(running, "number")["handled"] == 200)
        assert actor_of(running, "asked")["begun"] > 0


def test_threads_use_the_loop_and_are_told_so() -> None:
    graph = Graph("threaded")
    threaded, numbers = graph.add(Threaded), graph.add(number)
    graph.connect(threaded.rows, numbers, capacity=2)
    graph.expose(threaded.wrong, reply=threaded.wrong)
    graph.expose(threaded.right, reply=threaded.right)
    with graph.run() as running:
        found = running.client.call("threaded.wrong", timeout_s=30)
        assert len(found) == 3
        assert all("was used in another thread than the worker's" in each for each in found)
        running.client.call("threaded.right", timeout_s=30)
        wait_until(lambda: actor_of(running, "number")["handled"] == 300)
        assert actor_of(running, "threaded")["begun"] == 300
        with Control(running.name) as control:
            metrics = metrics_text(control.request(Metrics()))
        assert 'slabwire_actor_begun_total{graph="threaded",actor="threaded"' in metrics
