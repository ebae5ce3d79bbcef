"""What the ingress counts and times, in Prometheus' text format.

The names' meaning is that of OpenTelemetry's `gen_ai.server.*` and of vLLM's metrics:

=========================================  ===============================================================
slabwire_request_duration_seconds          gen_ai.server.request.duration, vllm:e2e_request_latency_seconds
slabwire_time_to_first_token_seconds       gen_ai.server.time_to_first_token, vllm:time_to_first_token_seconds
slabwire_time_per_output_token_seconds     gen_ai.server.time_per_output_token, vllm:inter_token_latency_seconds (mean)
slabwire_prompt_tokens_total               gen_ai.client.token.usage (input), vllm:prompt_tokens
slabwire_completion_tokens_total           gen_ai.client.token.usage (output), vllm:generation_tokens
slabwire_cached_tokens_total               vllm:prefix_cache_hits
slabwire_requests_in_flight                all that this ingress has taken on and not answered
slabwire_requests_running                  vllm:num_requests_running, as the model's actor says
slabwire_requests_waiting                  vllm:num_requests_waiting, as the model's actor says
slabwire_model_slots                       vllm's max_num_seqs
=========================================  ===============================================================
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from ...completion import Item
from .limits import Places

_FIRST_TOKEN_S = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
_PER_TOKEN_S = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5)
_DURATION_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Metrics:
    """The metrics of one ingress, in a registry of their own. `clock` gives seconds.

    The label `model` is "" for requests that were turned away before it was known to exist.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.registry = registry = CollectorRegistry()
        self.clock = clock
        self.requests = Counter(
            "slabwire_requests", "Chat completions by HTTP status; 499: left.", ["model", "status"], registry=registry
        )
        self.rejected = Counter(
            "slabwire_requests_rejected", "Chat completions turned away unheard.", ["reason"], registry=registry
        )
        self.disconnected = Counter(
            "slabwire_requests_disconnected", "Clients that left before the end.", ["model"], registry=registry
        )
        self._streamed = Counter(
            "slabwire_responses_streamed",
            "Streamed answers by the way of their body: written to the connection, or through all of ASGI.",
            ["way"],
            registry=registry,
        )
        self._prompt = self._tokens("prompt", "Tokens of prompts answered.")
        self._completion = self._tokens("completion", "Tokens of whole answers.")
        self._cached = self._tokens("cached", "Tokens of prompts that a cache knew.")
        self._duration = self._seconds("request_duration", "Whole request, to its last byte.", _DURATION_S)
        self._first = self._seconds("time_to_first_token", "Request to first token of it.", _FIRST_TOKEN_S)
        self._per_token = self._seconds("time_per_output_token", "Mean of an answer's later tokens.", _PER_TOKEN_S)
        self._in_flight = Gauge("slabwire_requests_in_flight", "Answers under way or waiting.", registry=registry)
        self._running = self._shown("running", "Answers that have a slot of the model.")
        self._waiting = self._shown("waiting", "Answers that wait for a slot of the model.")
        self._slots = Gauge(
            "slabwire_model_slots", "Answers that the model makes at a time.", ["model"], registry=registry
        )

    def watch(self, places: Places) -> None:
        """Shows how many places are taken, whenever somebody looks."""
        self._in_flight.set_function(lambda: places.taken)

    def show(self, descriptions: Mapping[str, Mapping[str, Any]]) -> None:
        """Takes over what the models' actors say of themselves; of one that does not answer nothing is said."""
        for gauge, name in ((self._running, "running"), (self._waiting, "waiting"), (self._slots, "slots")):
            gauge.clear()
            for model, described in descriptions.items():
                gauge.labels(model).set(described[name])

    def streamed(self, *, direct: bool) -> None:
        """Counts an answer that is streamed."""
        self._streamed.labels("direct" if direct else "asgi").inc()

    def show_tls(self, described: Mapping[str, Any]) -> None:
        """Shows what secures the connections, as `Terminator.describe` says."""
        labels = {name: described[name] for name in ("engine", "library", "minimum")}
        about = Gauge("slabwire_tls", "What secures the connections; always 1.", list(labels), registry=self.registry)
        about.labels(**labels).set(1)
        expires = Gauge(
            "slabwire_tls_certificate_not_after_seconds", "When the certificate expires.", registry=self.registry
        )
        expires.set(datetime.fromisoformat(described["not_after"]).timestamp())

    def watch_tickets(self, refused: Callable[[], Mapping[str, int]]) -> None:
        """Shows why sessions were not resumed, by reason, whenever somebody looks."""
        self.registry.register(_TicketsRefused(refused))

    def begin(self) -> Tally:
        return Tally(self)

    def text(self, accept: str) -> tuple[bytes, str]:
        """Everything, and its content type: OpenMetrics for whoever accepts that, else Prometheus' own."""
        encode, kind = choose_encoder(accept)
        return encode(self.registry), kind

    def observe(self, tally: Tally, status: int, ended: float) -> None:
        """Takes in a request that is over."""
        self.requests.labels(tally.model, str(status)).inc()
        self._duration.labels(tally.model).observe(ended - tally.began)
        if status == 499:
            self.disconnected.labels(tally.model).inc()
        if tally.first is not None:
            self._first.labels(tally.model).observe(tally.first - tally.began)
        if tally.usage is not None:
            self._observe_tokens(tally, tally.usage, ended)

    def _observe_tokens(self, tally: Tally, usage: Mapping[str, Any], ended: float) -> None:
        self._prompt.labels(tally.model).inc(usage["prompt_tokens"])
        self._completion.labels(tally.model).inc(usage["completion_tokens"])
        self._cached.labels(tally.model).inc(usage["prompt_tokens_details"]["cached_tokens"])
        later = usage["completion_tokens"] / tally.choices - 1
        if tally.first is not None and later > 0:
            self._per_token.labels(tally.model).observe((ended - tally.first) / later)

    def _shown(self, name: str, text: str) -> Gauge:
        return Gauge(f"slabwire_requests_{name}", text, ["model"], registry=self.registry)

    def _tokens(self, name: str, text: str) -> Counter:
        return Counter(f"slabwire_{name}_tokens", text, ["model"], registry=self.registry)

    def _seconds(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"slabwire_{name}_seconds", text, ["model"], buckets=buckets, registry=self.registry)


class _TicketsRefused(Collector):
    def __init__(self, refused: Callable[[], Mapping[str, int]]) -> None:
        self._refused = refused

    def collect(self) -> Iterable[Metric]:
        text = "Sessions that clients wanted to resume, and why they were not."
        family = CounterMetricFamily("slabwire_tls_tickets_refused", text, labels=["reason"])
        for reason, count in self._refused().items():
            family.add_metric([reason], count)
        yield family


class Tally:
    """What is noted of one request while it runs."""

    def __init__(self, metrics: Metrics) -> None:
        self.model = ""
        self.choices = 1
        self.began = metrics.clock()
        self.first: float | None = None
        self.usage: Mapping[str, Any] | None = None
        self._metrics = metrics

    def note(self, items: Sequence[Item]) -> None:
        """Items of the answer have come; only the first token is timed."""
        if self.first is None and any("text" in each for each in items):
            self.first = self._metrics.clock()

    def end(self, status: int) -> None:
        """The response is over. `status`: what was sent, or would have been, had the headers not been out."""
        self._metrics.observe(self, status, self._metrics.clock())
