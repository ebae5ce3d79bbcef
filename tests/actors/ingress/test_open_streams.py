"""Streams of a graph that runs: what the ingress keeps of them, and how they end with those who take part."""

from __future__ import annotations

import os
import signal
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from front_door import Door, counting
from waiting import wait_until, worker_of

STREAMS = 200


@pytest.fixture(autouse=True)
def directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("SLABWIRE_STATE_DIR", str(tmp_path / "state"))


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Any]:
    graph = counting(tmp_path, STREAMS + 8, requests=STREAMS, connections=STREAMS + 8, calls=STREAMS + 8)
    with graph.run() as running:
        yield running


def told(door: Door, start: str) -> float | None:
    """The value in /metrics of the line that starts so."""
    with urllib.request.urlopen(f"{door.told['url']}/metrics", context=door.context) as answer:
        lines = [line for line in answer.read().decode().splitlines() if line.startswith(start)]
    return float(lines[0].split()[-1]) if lines else None


def test_many_of_them_add_no_task(tmp_path: Path, running: Any) -> None:
    door = Door(running)
    door.get("/livez")
    wait_until(lambda: running.client.call("ingress.describe")["running"] == 0)
    before = running.client.call("ingress.tasks")
    streams = [door.chat() for _ in range(STREAMS)]
    assert running.client.call("ingress.describe")["running"] == STREAMS
    wait_until(lambda: running.client.call("ingress.tasks") <= before)
    assert told(door, "slabwire_requests_in_flight") == STREAMS
    (tmp_path / "go").touch()
    for connection, answer in streams:
        assert answer.read().endswith(b"data: [DONE]\n\n")
        connection.close()
    assert told(door, 'slabwire_requests_total{model="counter",status="200"}') == STREAMS
    assert told(door, "slabwire_requests_in_flight") == 0


def test_the_death_of_the_model_is_their_last_event(tmp_path: Path, running: Any) -> None:
    door = Door(running)
    streams = [door.chat() for _ in range(3)]
    os.kill(worker_of(running, "counts")["pid"], signal.SIGKILL)
    for connection, answer in streams:
        rest = answer.read()
        assert b'"code": "interrupted"' in rest
        assert b"[DONE]" not in rest
        connection.close()
    assert told(door, 'slabwire_requests_total{model="counter",status="503"}') == 3
    assert told(door, "slabwire_requests_in_flight") == 0
    (tmp_path / "go").touch()
    wait_until(lambda: door.get("/readyz")[0] == 200)
    connection, answer = door.chat()
    assert answer.read().endswith(b"data: [DONE]\n\n")
    connection.close()


def test_clients_that_leave_give_back_all_that_they_held(running: Any) -> None:
    door = Door(running)
    for _ in range(2):  # the second time all places are needed again
        streams = [door.chat() for _ in range(STREAMS)]
        for connection, answer in streams:
            answer.close()
            connection.close()
        wait_until(lambda: told(door, "slabwire_requests_in_flight") == 0)
    assert told(door, 'slabwire_requests_disconnected_total{model="counter"}') == 2 * STREAMS
    assert running.client.call("ingress.describe")["running"] <= 1


def test_a_graph_that_stops_tells_those_that_cannot_end_in_time(tmp_path: Path) -> None:
    with counting(tmp_path).run(drain_timeout_s=0.2) as running:
        connection, answer = Door(running).chat()
        running.stop()
        assert b'"code": "interrupted"' in answer.read()
        connection.close()
