"""Probes while all places are taken, and while the supervisor stands still."""

from __future__ import annotations

import json
import os
import signal
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from front_door import HELLO, Counts, Door
from slabwire import Graph
from slabwire.actors.ingress import Ingress
from slabwire.runtime.errors import GraphError
from slabwire.runtime.spec import USUAL_CALLS
from waiting import wait_until

CHOICES = 8


@pytest.fixture(autouse=True)
def directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("SLABWIRE_STATE_DIR", str(tmp_path / "state"))


def slow(folder: Path, requests: int, **settings: Any) -> Graph:
    graph = Graph("slow")
    counts = graph.add(Counts, name="counts", folder=str(folder), **settings)
    ingress = graph.add(Ingress, name="ingress", models={"counter": "counts"}, port=0, requests=requests)
    graph.expose(ingress.describe, counts.describe)
    return graph


def text(door: Door, path: str) -> str:
    with closing(door.connect()) as connection:
        connection.request("GET", path)
        return connection.getresponse().read().decode()


def take_places(door: Door, count: int, connections: ExitStack) -> None:
    """Asks for so many answers, which do not end, by few connections."""
    body = json.dumps({"model": "counter", "messages": HELLO, "stream": True, "n": CHOICES})
    for _ in range(count // CHOICES):
        connection = connections.enter_context(closing(door.connect()))
        connection.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
    wait_until(lambda: f"slabwire_requests_in_flight {float(count)}" in text(door, "/metrics"))


@pytest.mark.parametrize("concurrency", [2 * USUAL_CALLS, 64, 16])
def test_probes_are_answered_while_slow_streams_have_all_places(tmp_path: Path, concurrency: int) -> None:
    with slow(tmp_path, USUAL_CALLS, concurrency=concurrency).run(drain_timeout_s=0.1) as running, ExitStack() as open_:
        door = Door(running)
        take_places(door, USUAL_CALLS, open_)
        # Asked anew for each look at /metrics, which shows models that have answered to it and no others.
        seen = text(door, "/metrics")
        assert 'slabwire_model_slots{model="counter"} 1.0' in seen
        assert 'slabwire_tls{engine="' in seen
        assert 'slabwire_tls_certificate_not_after_seconds{replica="0"} 1.' in seen
        assert door.get("/readyz") == (200, {"status": "ready", "replicas": {"serving": 1}})
        assert door.get("/livez")[0] == 200
        connection = open_.enter_context(closing(door.connect()))
        connection.request("POST", "/v1/chat/completions", json.dumps({"model": "counter", "messages": HELLO}))
        assert connection.getresponse().status == 429


def test_requests_that_wait_for_a_place_at_the_model_are_answered_in_the_end(tmp_path: Path) -> None:
    with slow(tmp_path, 3 * CHOICES, concurrency=2).run() as running, ExitStack() as open_:
        door = Door(running)
        asked = [open_.enter_context(closing(door.connect())) for _ in range(6)]
        for each in asked:
            each.request("POST", "/v1/chat/completions", json.dumps({"model": "counter", "messages": HELLO}))
        wait_until(lambda: "slabwire_requests_in_flight 6.0" in text(door, "/metrics"))
        (tmp_path / "go").touch()
        answers = [json.loads(each.getresponse().read()) for each in asked]
        assert {each["choices"][0]["message"]["content"] for each in answers} == {"one two"}


def test_more_requests_than_there_are_places_are_refused_when_the_graph_is_made() -> None:
    for requests in (USUAL_CALLS + 1, 0, -1, "48", True, 1.5):
        with pytest.raises(GraphError, match=r"actor 'ingress': an Ingress was given requests="):
            Graph("g").add(Ingress, name="ingress", models={"a": "b"}, requests=requests)
    with pytest.raises(GraphError, match=f"give it calls={USUAL_CALLS + 1} as well, or fewer requests"):
        Graph("g").add(Ingress, models={"a": "b"}, requests=USUAL_CALLS + 1)
    Graph("g").add(Ingress, models={"a": "b"}, requests=USUAL_CALLS)


def test_a_supervisor_that_is_stopped_makes_the_server_unready_until_it_goes_on(tmp_path: Path) -> None:
    with slow(tmp_path, 8).run() as running:
        door = Door(running)
        wait_until(lambda: door.get("/readyz")[0] == 200)
        os.kill(running.pid, signal.SIGSTOP)
        try:
            (reason,) = wait_until(lambda: door.get("/readyz")[1].get("reasons"))
            assert "the supervisor of graph 'slow' did not answer 'hello' within 2 s: it is stopped or hangs" in reason
            assert door.get("/livez")[0] == 200
            assert "slabwire_supervisor_answers 0.0" in text(door, "/metrics")
        finally:
            os.kill(running.pid, signal.SIGCONT)
        wait_until(lambda: door.get("/readyz")[0] == 200)
