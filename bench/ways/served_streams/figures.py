"""What is shown of the visits to all servers."""

from __future__ import annotations

from collections.abc import Mapping

from ...harness.medians import Column, percentile
from .visit import Figures

TITLE = "medians of the rounds; latency from the source's step to the client's read"
COLUMNS: Mapping[str, Column[Figures]] = {
    "cpu_us": (">CPU µs a token", lambda each: each.cpu_us()),
    "serving_cpu_us": (">serving", lambda each: each.cpu_us("serving")),
    "source_cpu_us": (">source", lambda each: _cpu_us(each, "source")),
    "rest_cpu_us": (">rest", lambda each: _cpu_us(each, "rest")),
    "cores": (">cores", lambda each: each.cores),
    "tokens_a_second": (">tokens a second", lambda each: each.tokens / each.took_ns * 1e9),
    "in_time_percent": (">% in time", lambda each: each.share_in_time * 100),
    "missed": (">missed", lambda each: float(each.missed)),
    "latency_p50_us": (">p50 µs", lambda each: percentile(each.latencies_us, 0.5)),
    "latency_p99_us": (">p99 µs", lambda each: percentile(each.latencies_us, 0.99)),
    "jitter_p99_us": (">jitter p99 µs", lambda each: percentile(each.jitter_us, 0.99)),
    "serving_nbytes_a_stream": (">bytes a stream, serving", lambda each: each.nbytes_a_stream("serving")),
    "memory_nbytes_a_stream": (">all", lambda each: each.nbytes_a_stream()),
    "errors": (">errors", lambda each: float(each.errors)),
}


def _cpu_us(figures: Figures, kind: str) -> float | None:
    return figures.cpu_us(kind) if kind in figures.cpu_ns else None
