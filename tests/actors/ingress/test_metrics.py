"""What the ingress counts and times."""

from __future__ import annotations

import asyncio
import math
import threading
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from scripted_chat import ACCEPTED, END, GREETING, Ingress
from slabwire.actors.ingress.probes.supervisor import GraphMetrics
from slabwire.actors.ingress.requests.metrics import Metrics
from slabwire.runtime.errors import Disconnected
from slabwire.runtime.telemetry.exposition import Family


def samples(text: bytes) -> dict[tuple[str, ...], float]:
    """Every sample by its name and the values of its labels, in the order of their names."""
    found = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            found[(sample.name, *(value for _, value in sorted(sample.labels.items())))] = sample.value
    return found


def metrics_after(*scripts: tuple[Any, ...], requests: list[dict[str, Any]]) -> dict[tuple[str, ...], float]:
    async def scenario() -> dict[tuple[str, ...], float]:
        ingress = Ingress(*scripts)
        for request in requests:
            await ingress.post(**request)
        return samples((await ingress.get("/metrics")).body)

    return asyncio.run(scenario())


def test_requests_tokens_and_times_of_answers() -> None:
    seen = metrics_after(requests=[{"stream": True}, {"n": 2}])
    assert seen["slabwire_requests_total", "smol", "200"] == 2
    assert seen["slabwire_prompt_tokens_total", "smol"] == 14
    assert seen["slabwire_completion_tokens_total", "smol"] == 6
    assert seen["slabwire_cached_tokens_total", "smol"] == 6
    assert seen["slabwire_requests_in_flight",] == 0
    assert [seen[f"slabwire_{name}", "smol"] for name in ("requests_running", "requests_waiting", "model_slots")] == [
        2,
        3,
        8,
    ]
    for name in ("request_duration", "time_to_first_token", "time_per_output_token"):
        assert seen[f"slabwire_{name}_seconds_count", "smol"] == 2
        assert seen[f"slabwire_{name}_seconds_bucket", "+Inf", "smol"] == 2
    assert ("slabwire_time_to_first_token_seconds_bucket", "0.001", "smol") in seen
    assert ("slabwire_time_per_output_token_seconds_bucket", "0.025", "smol") in seen


def test_errors_by_status_without_names_that_clients_invent() -> None:
    seen = metrics_after(requests=[{"model": "unknown"}, {"body": b"{"}, {"n": 99}])
    assert seen["slabwire_requests_total", "", "404"] == 1
    assert seen["slabwire_requests_total", "", "400"] == 2
    assert not any("unknown" in key for key in seen)


def test_an_answer_that_fails_half_way_counts_by_the_status_that_it_would_have_had() -> None:
    seen = metrics_after((ACCEPTED, {"text": "a", "tokens": 1}), requests=[{"stream": True}])
    assert seen["slabwire_requests_total", "smol", "503"] == 1


def test_the_time_per_token_leaves_the_first_one_out() -> None:
    now = [0.0]
    metrics = Metrics(["smol"], clock=lambda: now[0])
    tally = metrics.begin()
    tally.model = "smol"
    for seconds, item in ((2.0, GREETING[1]), (2.1, GREETING[2])):
        now[0] = seconds
        tally.note(item)
    tally.usage = {"prompt_tokens": 7, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 0}}
    tally.end(200)
    seen = samples(metrics.text("")[0])
    assert seen["slabwire_time_to_first_token_seconds_sum", "smol"] == 2.0
    assert round(seen["slabwire_time_per_output_token_seconds_sum", "smol"], 6) == 0.1


def test_what_is_in_flight_and_turned_away() -> None:
    async def scenario() -> None:
        ingress = Ingress((ACCEPTED, asyncio.Event(), END), requests=2)
        running = ingress.begin(stream=True, n=2)
        await running.until(b"assistant")
        await ingress.post()
        ingress.state.draining = True
        await ingress.post()
        exchange = await ingress.get("/metrics")
        assert exchange.headers["content-type"].startswith("text/plain; version=0.0.4")
        seen = samples(exchange.body)
        assert seen["slabwire_requests_in_flight",] == 2
        assert seen["slabwire_requests_rejected_total", "overloaded"] == 1
        assert seen["slabwire_requests_rejected_total", "draining"] == 1
        running.leave()
        await running.done()
        seen = samples((await ingress.get("/metrics")).body)
        assert seen["slabwire_requests_disconnected_total", "smol"] == 1
        assert seen["slabwire_requests_total", "smol", "499"] == 1

    asyncio.run(scenario())


def test_two_ingresses_in_one_process_count_apart() -> None:
    first, second = Metrics(), Metrics()
    first.begin().end(200)
    assert ("slabwire_requests_total", "", "200") not in samples(second.text("")[0])


def test_the_graphs_metrics_stand_beside_and_their_absence_is_told() -> None:
    now, asked = [100.0], list[Any]()
    family = Family("slabwire_worker_parks_total", "counter", "Sleeps.")
    family.add(3, {"worker": "a"})
    seconds = Family("slabwire_actor_handler_seconds", "histogram", "Runs.")
    seconds.add_histogram({0.1: 1, math.inf: 2}, 1.5, {"actor": "a"})

    def ask() -> list[Family]:
        asked.append(threading.current_thread())
        if len(asked) > 1:
            raise Disconnected("it does not answer")
        return [family, seconds]

    async def scenario() -> None:
        ingress = Ingress(graph=GraphMetrics(ask, clock=lambda: now[0]))
        both = await asyncio.gather(ingress.get("/metrics"), ingress.get("/metrics"))
        for seen in (samples(each.body) for each in both):
            assert seen["slabwire_worker_parks_total", "a"] == 3
            assert seen["slabwire_actor_handler_seconds_bucket", "a", "+Inf"] == 2
            assert seen["slabwire_actor_handler_seconds_sum", "a"] == 1.5
            assert seen["slabwire_supervisor_answers",] == 1
            assert seen["slabwire_requests_in_flight",] == 0
        assert len(asked) == 1
        assert asked[0] is not threading.main_thread()
        newer = await ingress.get("/metrics", accept="application/openmetrics-text")
        assert b'slabwire_worker_parks_total{worker="a"} 3' in newer.body
        assert newer.body.endswith(b"# EOF\n")
        now[0] += 2
        seen = samples((await ingress.get("/metrics")).body)
        assert seen["slabwire_supervisor_answers",] == 0
        assert ("slabwire_worker_parks_total", "a") not in seen

    asyncio.run(scenario())
