"""What the ingress counts and times, in Prometheus' text format.

The names' meaning is that of OpenTelemetry's `gen_ai.server.*` and of vLLM's metrics:

=========================================  ===============================================================
slabwire_request_duration_seconds          gen_ai.server.request.duration, vllm:e2e_request_latency_seconds
slabwire_time_to_first_token_seconds       gen_ai.server.time_to_first_token, vllm:time_to_first_token_seconds
slabwire_time_per_output_token_seconds     gen_ai.server.time_per_output_token, vllm:inter_token_latency_seconds (mean)
slabwire_prompt_tokens_total               gen_ai.client.token.usage (input), vllm:prompt_tokens
slabwire_completion_tokens_total           gen_ai.client.token.usage (output), vllm:generation_tokens
slabwire_cached_tokens_total               vllm:prefix_cache_hits
slabwire_requests_in_flight                all that the ingress has taken on and not answered
slabwire_requests_running                  vllm:num_requests_running, as the model's actor says
slabwire_requests_waiting                  vllm:num_requests_waiting, as the model's actor says
slabwire_model_slots                       vllm's max_num_seqs
=========================================  ===============================================================

All replicas of an ingress have one set of metrics, whichever of them is asked: counters and histograms are added up,
gauges as well where a sum says something, and the others are labelled by replica. See `counts/sheet.py` for where they
lie.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from ....runtime.telemetry.exposition import Family
from ...completion import Item
from ..counts.connections import Connections
from ..counts.roster import Keep, Roster, Stage, keep_here
from ..counts.sheet import OTHER, Counter, Histogram, Row, Sheet
from ..tls.outcome import KINDS
from .request_id import Names
from .request_lines import RequestLines

_FIRST_TOKEN_S = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
_PER_TOKEN_S = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5)
_DURATION_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_STATUSES = (200, 400, 403, 404, 405, 408, 413, 415, 421, 429, 499, 500, 501, 503, 504, 508)
_WAYS = ("direct", "asgi")

T = TypeVar("T")


class Metrics(Collector):
    """The metrics of an ingress: what this process counts, and what all of its replicas have. `clock` gives seconds.

    `models` are the names that clients may use. The label `model` is "" for requests that were turned away before it
    was known to exist. `keep` gives the memory that all of the `replicas` share, as `Actor.keep` does.
    """

    def __init__(
        self,
        models: Iterable[str] = (),
        clock: Callable[[], float] = time.perf_counter,
        keep: Keep = keep_here,
        replicas: int = 1,
    ) -> None:
        self.registry = CollectorRegistry()
        self.clock = clock
        self.lines = RequestLines()
        self._sheet = sheet = Sheet()
        self._model = {"model": ("", *models)}
        self._declare(sheet)
        self.connections = Connections(sheet)
        self.roster = Roster(sheet, keep, replicas)
        self._described: Mapping[str, Mapping[str, Any]] = {}
        self._by_asgi = 0
        self._describe_tls: Callable[[], Mapping[str, Any]] | None = None
        self.registry.register(self)

    def _declare(self, sheet: Sheet) -> None:
        statuses = {**self._model, "status": (*map(str, _STATUSES), OTHER)}
        self._requests = sheet.counter(
            "slabwire_requests", "Chat completions by HTTP status; 499: left.", statuses, shows_unused=False
        )
        self._rejected = sheet.counter(
            "slabwire_requests_rejected",
            "Chat completions turned away unheard.",
            {"reason": ("overloaded", "draining", OTHER)},
        )
        self._disconnected = self._counted("requests_disconnected", "Clients that left before the end.")
        self._streamed = sheet.counter(
            "slabwire_responses_streamed",
            "Streamed answers by the way of their body: written to the connection, or through all of ASGI.",
            {"way": _WAYS},
        )
        self._open = sheet.gauge("slabwire_responses_open", "Streamed answers under way, by way.", {"way": _WAYS})
        self._prompt = self._counted("prompt_tokens", "Tokens of prompts answered.")
        self._completion = self._counted("completion_tokens", "Tokens of whole answers.")
        self._cached = self._counted("cached_tokens", "Tokens of prompts that a cache knew.")
        self._duration = self._seconds("request_duration", "Whole request, to its last byte.", _DURATION_S)
        self._first = self._seconds("time_to_first_token", "Request to first token of it.", _FIRST_TOKEN_S)
        self._per_token = self._seconds("time_per_output_token", "Mean of an answer's later tokens.", _PER_TOKEN_S)
        self._in_flight = sheet.gauge("slabwire_requests_in_flight", "Answers under way or waiting, of all replicas.")
        self._most = sheet.gauge(
            "slabwire_requests_most", "How many answers a replica has in flight at most.", by_replica=True
        )
        self._not_after = sheet.gauge(
            "slabwire_tls_certificate_not_after_seconds",
            "When the first certificate of a replica ends, in seconds since 1970.",
            by_replica=True,
        )
        self._key_since = sheet.gauge(
            "slabwire_tls_ticket_key_active_seconds",
            "Since when the key is active that a replica seals tickets with, in seconds since 1970; 0: it has none.",
            by_replica=True,
        )

    def allow(self, *, requests: int, connections: int) -> None:
        """Shows how much this process takes on."""
        self._most.set(requests)
        self.connections.most.set(connections)

    def taken(self, places: int) -> None:
        """Shows how many places are taken now."""
        self._in_flight.set(places)

    def show(self, descriptions: Mapping[str, Mapping[str, Any]]) -> None:
        """Takes over what the models' actors say of themselves; of one that does not answer nothing is said."""
        self._described = descriptions

    def streamed(self, *, direct: bool) -> None:
        """Counts an answer that is streamed."""
        self._streamed.inc(_WAYS[0] if direct else _WAYS[1])

    def are_open(self, number: int) -> None:
        """So many answers are written to their connections, now."""
        self._open.set(number, _WAYS[0])

    async def while_open(self, answer: Awaitable[T]) -> T:
        """Counts an answer as one that goes through ASGI, for as long as it does."""
        self._by_asgi += 1
        self._open.set(self._by_asgi, _WAYS[1])
        try:
            return await answer
        finally:
            self._by_asgi -= 1
            self._open.set(self._by_asgi, _WAYS[1])

    def rejected(self, reason: str) -> None:
        """Counts a request that was turned away unheard."""
        self._rejected.inc(reason)

    def show_tls(self, describe: Callable[[], Mapping[str, Any]]) -> None:
        """Shows what secures the connections, as `Terminator.describe` says, which is asked whenever somebody looks."""
        self._describe_tls = describe
        self.look_at_tls()

    def look_at_tls(self) -> None:
        """Notes for all replicas what has an age: it goes on while nobody asks this one."""
        if self._describe_tls is None:
            return
        described = self._describe_tls()
        self._not_after.set(datetime.fromisoformat(described["not_after"]).timestamp())
        age_s = described.get("tickets", {}).get("key_age_s")
        self._key_since.set(0.0 if age_s is None else time.time() - age_s)

    def begin(self, names: Names | None = None) -> Tally:
        return Tally(self, names)

    # -- what all replicas have counted ------------------------------------------------------------------------------

    def text(self, accept: str) -> tuple[bytes, str]:
        """Everything, and its content type: OpenMetrics for whoever accepts that, else Prometheus' own."""
        encode, kind = choose_encoder(accept)
        return encode(self.registry), kind

    def collect(self) -> Iterator[Metric]:
        """What prometheus_client asks for."""
        yield from map(metric_of, self.families())

    def families(self) -> list[Family]:
        """Of all replicas, whoever of them is asked."""
        replicas = Family("slabwire_replicas", "gauge", "Replicas of the ingress by what they do.")
        stages = [each.stage for each in self.roster.see()]
        for stage in Stage:
            replicas.add(stages.count(stage), {"stage": stage.name.lower()})
        return [*self._sheet.families(self.roster.rows()), replicas, *self._of_models(), *self._of_tls()]

    def _of_models(self) -> Iterator[Family]:
        for name, field, meaning in (
            ("requests_running", "running", "Answers that have a slot of the model."),
            ("requests_waiting", "waiting", "Answers that wait for a slot of the model."),
            ("model_slots", "slots", "Answers that the model makes at a time."),
        ):
            family = Family(f"slabwire_{name}", "gauge", meaning)
            for model, described in self._described.items():
                family.add(described[field], {"model": model})
            yield family

    def _of_tls(self) -> Iterator[Family]:
        if self._describe_tls is None:
            return
        described = self._describe_tls()
        about = Family("slabwire_tls", "gauge", "What secures the connections; always 1.")
        about.add(1, {name: described[name] for name in ("engine", "library", "minimum")})
        yield about
        lost = Family("slabwire_tls_features_lost", "gauge", "What cannot be done without libssl; always 1.")
        for each in described.get("lost", ()):
            lost.add(1, {"feature": each})
        yield lost
        certificates = Family("slabwire_tls_certificates", "gauge", "Which are in use; always 1.")
        certificates.add(1, {"generation": described["generation"]})
        yield certificates

    def describe_replicas(self) -> dict[str, Any]:
        """For people: {"replicas", "ways", "handshaken"}: what each does, and its share; what all have counted."""
        rows = self.roster.rows()
        counted = [self._counted_by(each) for each in rows]
        of_all = max(1, sum(each["accepted"] for each in counted))
        return {
            "replicas": [
                {
                    "replica": seen.replica,
                    "stage": seen.stage.name.lower(),
                    "pid": seen.pid,
                    **each,
                    "share": round(each["accepted"] / of_all, 3),
                }
                for seen, each in zip(self.roster.see(), counted, strict=True)
            ],
            "ways": {way: sum(each["ways"][way] for each in counted) for way in _WAYS},
            "handshaken": {kind: sum(each["handshaken"][kind] for each in counted) for kind in KINDS},
        }

    def _counted_by(self, row: Row) -> dict[str, Any]:
        """What one replica has, and has counted; `certificate_ends` and `key_since` are in seconds since 1970."""
        found: dict[tuple[str, ...], float] = defaultdict(float)
        for family in self._sheet.families([row]):
            for end, labels, value in family.samples:
                found[family.name + end, *(each for label, each in labels.items() if label != "replica")] = value
        return {
            "connections": int(found["slabwire_connections",]),
            "accepted": int(found["slabwire_connections_accepted_total",]),
            "requests": int(found["slabwire_requests_in_flight",]),
            "streams": {way: int(found["slabwire_responses_open", way]) for way in _WAYS},
            "ways": {way: int(found["slabwire_responses_streamed_total", way]) for way in _WAYS},
            "handshaken": {kind: int(found["slabwire_tls_handshake_seconds_count", kind]) for kind in KINDS},
            "certificate_ends": found["slabwire_tls_certificate_not_after_seconds",] or None,
            "key_since": found["slabwire_tls_ticket_key_active_seconds",] or None,
        }

    # -- what becomes of requests ------------------------------------------------------------------------------------

    def observe(self, tally: Tally, status: int, ended: float) -> None:
        """Takes in a request that is over."""
        self._requests.inc(tally.model, str(status))
        self._duration.observe(ended - tally.began, tally.model)
        if status == 499:
            self._disconnected.inc(tally.model)
        if tally.first is not None:
            self._first.observe(tally.first - tally.began, tally.model)
        if tally.usage is not None:
            self._observe_tokens(tally, tally.usage, ended)
        if tally.names is not None:
            self.lines.say(tally.names, tally.model, status, ended - tally.began, tally.first_s)

    def _observe_tokens(self, tally: Tally, usage: Mapping[str, Any], ended: float) -> None:
        self._prompt.inc(tally.model, by=usage["prompt_tokens"])
        self._completion.inc(tally.model, by=usage["completion_tokens"])
        self._cached.inc(tally.model, by=usage["prompt_tokens_details"]["cached_tokens"])
        later = usage["completion_tokens"] / tally.choices - 1
        if tally.first is not None and later > 0:
            self._per_token.observe((ended - tally.first) / later, tally.model)

    def _counted(self, name: str, meaning: str) -> Counter:
        return self._sheet.counter(f"slabwire_{name}", meaning, self._model, shows_unused=False)

    def _seconds(self, name: str, meaning: str, bounds: tuple[float, ...]) -> Histogram:
        return self._sheet.histogram(f"slabwire_{name}_seconds", meaning, bounds, self._model, shows_unused=False)


def metric_of(family: Family) -> Metric:
    """The family as prometheus_client has it."""
    metric = Metric(family.name.removesuffix("_total"), family.meaning, family.kind)
    for suffix, labels, value in family.samples:
        metric.add_sample(family.name + suffix, dict(labels), value)
    return metric


class Tally:
    """What is noted of one request while it runs."""

    __slots__ = ("_metrics", "began", "choices", "first", "model", "names", "usage")

    def __init__(self, metrics: Metrics, names: Names | None) -> None:
        self.names = names
        self.model = ""
        self.choices = 1
        self.began = metrics.clock()
        self.first: float | None = None
        self.usage: Mapping[str, Any] | None = None
        self._metrics = metrics

    @property
    def first_s(self) -> float | None:
        """Seconds to the first token, once there is one."""
        return None if self.first is None else self.first - self.began

    def note(self, items: Sequence[Item]) -> None:
        """Items of the answer have come; only the first token is timed."""
        if self.first is None and any("text" in each for each in items):
            self.first = self._metrics.clock()

    def end(self, status: int) -> None:
        """The response is over. `status`: what was sent, or would have been, had the headers not been out."""
        self._metrics.observe(self, status, self._metrics.clock())
