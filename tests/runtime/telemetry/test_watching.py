"""A running graph watched from outside: its trace, its metrics, and both through the death of a worker."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

import slabwire
from fake_graphs import invoke
from slabwire import Graph
from slabwire.cli.exits import Exit
from slabwire.cli.scrape import MetricsServer
from slabwire.runtime.clients.control import Control
from slabwire.runtime.control.verbs import Events, Metrics
from slabwire.runtime.telemetry.exposition import Family, text_of
from slabwire.runtime.telemetry.flight_recorder import Happening, events_of
from slabwire.runtime.telemetry.metrics import cumulative, families_of, metrics_text
from slabwire.runtime.telemetry.stats import BUCKETS
from stage import Collects, Dies, Echo, Waits
from trace_check import check
from waiting import wait_until, worker_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("w")


@pytest.fixture(scope="module")
def running(folder: Path) -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLABWIRE_RUN_DIR", str(folder))
        graph = Graph("watched")
        waits, middle, echo = graph.add(Waits), graph.add(Echo, name="middle"), graph.add(Echo)
        graph.connect(waits.sleep, middle.echo)
        graph.connect(middle.echo, echo.echo)
        dies, slow = graph.add(Dies, folder=str(folder)), graph.add(Collects, path=str(folder / "slow"))
        graph.expose(waits.sleep, waits.many, dies.plain, slow.slowly)
        with graph.run() as started:
            yield started


@pytest.fixture
def client(running: Any) -> Iterator[Any]:
    with slabwire.connect(running.name) as connected:
        yield connected


Samples = dict[tuple[str, ...], float]


def samples(text: str) -> Samples:
    """Every sample by its name and the values of its labels."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        for each in family.samples:
            key = (each.name, *(f"{name}={value}" for name, value in sorted(each.labels.items()) if name != "graph"))
            assert key not in found
            found[key] = each.value
    return found


def metrics(running: Any) -> Samples:
    with Control(running.name) as control:
        return samples(metrics_text(control.request(Metrics())))


def of_actor(seen: Samples, name: str, actor: str) -> float:
    return seen[name, f"actor={actor}", f"worker={actor}"]


# -- the trace -------------------------------------------------------------------------------------------------------


def written(running: Any, path: Path, *words: str) -> list[dict[str, Any]]:
    result = invoke("trace", running.name, "--output", str(path), *words, "--format", "json")
    assert result.exit_code == Exit.OK, result.output
    events: list[dict[str, Any]] = json.loads(path.read_text())["traceEvents"]
    check(events)
    said = json.loads(result.output)
    assert said["slices"] == sum(each["ph"] == "X" for each in events)
    assert said["arrows"] == sum(each["ph"] == "s" for each in events)
    return events


def followed(events: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """From which slice to which the arrows lead, by names, in the order of time."""

    def at(end: dict[str, Any]) -> str:
        inside = (
            each["name"]
            for each in events
            if each["ph"] == "X"
            and (each["pid"], each["tid"]) == (end["pid"], end["tid"])
            and each["ts"] <= end["ts"] < each["ts"] + each["dur"]
        )
        return str(next(inside))

    ends = sorted((each for each in events if each["ph"] in "sf"), key=lambda each: each["id"])
    pairs = sorted(zip(ends[::2], ends[1::2], strict=True), key=lambda pair: pair[1]["ts"])
    return [(at(begin), at(end)) for begin, end in pairs]


def test_one_request_is_followed_through_three_actors(running: Any, client: Any, tmp_path: Path) -> None:
    client.call("waits.sleep", 0.001)
    everything = written(running, tmp_path / "all.json")
    (trace,) = {each["args"]["trace"] for each in everything if each["ph"] == "X" and each["name"] == "waits.sleep"}
    client.call("waits.sleep", 0.001)  # another
    events = written(running, tmp_path / "one.json", "--trace-id", trace)
    assert followed(events) == [
        ("call waits.sleep", "waits.sleep"),
        ("waits.sleep", "middle.echo"),
        ("middle.echo", "echo.echo"),
    ]
    request = next(each["args"]["request"] for each in events if each["ph"] == "X" and each["name"] == "echo.echo")
    assert followed(written(running, tmp_path / "same.json", "--request", request)) == followed(events)


def test_calls_between_actors_are_arrows_too(running: Any, client: Any, tmp_path: Path) -> None:
    assert client.call("waits.many", 3) == [0, 1, 2]
    events = written(running, tmp_path / "trace.json", "--last", "60")
    assert followed(events).count(("waits.many", "echo.echo")) == 3
    callers = {each["args"]["caller"] for each in events if each["ph"] == "X" and each["name"] == "echo.echo"}
    assert "waits" in callers


def test_what_was_never_recorded_is_an_error(running: Any, tmp_path: Path) -> None:
    result = invoke("trace", running.name, "--trace-id", "no such thing", "--output", str(tmp_path / "none"))
    assert result.exit_code == Exit.FAILED
    assert "holds such an event" in result.output
    result = invoke("trace", running.name, "--output", str(tmp_path / "no folder" / "file"))
    assert result.exit_code == Exit.FAILED
    assert "--output" in result.output


def outcomes(events: list[dict[str, Any]], name: str) -> list[tuple[int, str]]:
    bars = [each["args"] for each in events if each["ph"] == "X" and each["name"] == name]
    return [(each["attempt"], each["outcome"]) for each in bars]


def test_what_runs_now_and_what_a_process_died_of_are_in_the_trace(
    running: Any, client: Any, folder: Path, tmp_path: Path
) -> None:
    assert client.call("dies.plain", "mine", 1) == 2
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(client.call, "collects.slowly", 7)
        wait_until(lambda: worker_of(running, "collects")["actors"][0]["busy_for_s"])
        events = written(running, tmp_path / "trace.json")
        (folder / "slow.go").touch()
        assert call.result() == 7
    assert outcomes(events, "dies.plain") == [(1, "lost with its process"), (2, "answered")]
    assert outcomes(events, "collects.slowly") == [(1, "running")]
    assert ("call collects.slowly", "collects.slowly") in followed(events)
    later = tmp_path / "later.json"
    wait_until(lambda: outcomes(written(running, later), "collects.slowly") == [(1, "answered")])


# -- the metrics -----------------------------------------------------------------------------------------------------


def test_the_metrics_say_what_was_done(running: Any, client: Any) -> None:
    before = metrics(running)
    for _ in range(3):
        client.call("waits.sleep", 0.002)
    seen = wait_until(
        lambda: (
            now
            if of_actor(now := metrics(running), "slabwire_actor_handler_seconds_count", "waits")
            >= of_actor(before, "slabwire_actor_handler_seconds_count", "waits") + 3
            else None
        )
    )
    slept = "slabwire_actor_handler_seconds_sum"
    assert of_actor(seen, slept, "waits") >= of_actor(before, slept, "waits") + 0.006
    edge = ("source=middle.echo", "target=echo.echo")
    assert seen["slabwire_edge_messages_total", *edge] == before["slabwire_edge_messages_total", *edge] + 3
    assert seen["slabwire_ready",] == 1
    assert seen["slabwire_worker_ready", "worker=echo"] == 1
    assert seen["slabwire_worker_cpu_seconds_total", "worker=echo"] > 0
    assert seen["slabwire_worker_memory_bytes", "worker=echo"] > 1e6
    assert seen["slabwire_edge_turned_away_total", "outcome=rejected", *edge] == 0
    wait_until(lambda: of_actor(metrics(running), "slabwire_actor_waiting", "echo") == 0)


def test_the_metrics_are_printed_and_served(running: Any) -> None:
    printed = invoke("metrics", running.name)
    assert printed.exit_code == Exit.OK
    assert ("slabwire_ready",) in samples(printed.output)
    plain = json.loads(invoke("metrics", running.name, "--format", "json").output)
    assert {"counter", "gauge", "histogram"} == {each["kind"] for each in plain["metrics"]}
    with MetricsServer(running.name, "127.0.0.1", 0) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.02,))
        serving.start()
        try:
            with urllib.request.urlopen(server.url) as answer:
                assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
                assert ("slabwire_ready",) in samples(answer.read().decode())
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(server.url.replace("/metrics", "/"))
            server.graph = "nobody"
            with pytest.raises(urllib.error.HTTPError, match="503"):
                urllib.request.urlopen(server.url)
        finally:
            server.shutdown()
            serving.join()
        taken = invoke("metrics", running.name, "--listen", f"127.0.0.1:{server.server_port}")
        assert taken.exit_code == Exit.NOT_STARTED
        assert "choose another port" in taken.output
    assert invoke("metrics", running.name, "--listen", "nonsense").exit_code == Exit.USAGE


def test_the_documentation_names_every_metric(running: Any) -> None:
    text = (Path(__file__).resolve().parents[3] / "docs" / "operating.md").read_text()
    named = {word for row in text.splitlines() if row.startswith("| `") for word in re.findall(r"`(\w+)`", row)}
    with Control(running.name) as control:
        answer = control.request(Metrics())
    assert {each.name.removeprefix("slabwire_") for each in families_of(answer["status"], answer["durations"])} <= named


def is_counter(name: str) -> bool:
    return name.endswith(("_total", "_count", "_sum", "_bucket"))


def test_no_counter_goes_back_when_a_worker_is_killed(running: Any, client: Any) -> None:
    client.call("waits.many", 20)
    restarts = ("slabwire_worker_restarts_total", "worker=echo")
    seen = [metrics(running)]
    pid = worker_of(running, "echo")["pid"]
    os.kill(pid, signal.SIGKILL)

    def is_back() -> bool:
        seen.append(metrics(running))
        return seen[-1][restarts] == seen[0][restarts] + 1 and seen[-1]["slabwire_worker_ready", "worker=echo"] == 1

    wait_until(is_back)
    client.call("waits.many", 20)
    handled = ("slabwire_actor_handler_seconds_count", "actor=echo", "worker=echo")
    wait_until(lambda: metrics(running)[handled] >= seen[0][handled] + 20)
    seen.append(metrics(running))
    for earlier, later in pairwise(seen):
        assert {key for key, value in earlier.items() if is_counter(key[0]) and later[key] < value} == set()
    with Control(running.name) as control:
        events = events_of(control.request(Events(worker="echo"))["rows"])
    turns = [each for each in events if each.happening != Happening.INPUT]
    pids = [each.pid for each in turns if each.happening == Happening.STARTED]
    assert pids == [pid, worker_of(running, "echo")["pid"]]
    before_death = [each for each in events if each.happening == Happening.INPUT and each.number < turns[-1].number]
    assert len(before_death) >= 20  # of the dead process, read behind its back


def test_text_is_escaped_as_prometheus_demands() -> None:
    family = Family("slabwire_x_total", "counter", 'One\nline \\ with "quotes".')
    family.add(1.5, {"path": 'a"b\\c\nd'})
    family.add(float("inf"), {"path": ""})
    (parsed,) = text_string_to_metric_families(text_of([family]))
    assert parsed.documentation == 'One\nline \\ with "quotes".'
    assert [each.labels["path"] for each in parsed.samples] == ['a"b\\c\nd', ""]
    assert [each.value for each in parsed.samples] == [1.5, float("inf")]


def test_buckets_are_cumulative() -> None:
    counts = list(cumulative([1] * BUCKETS).values())
    assert counts == sorted(counts)
    assert counts[-1] == BUCKETS
