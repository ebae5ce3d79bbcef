"""What is shown of the visits to all ways."""

from __future__ import annotations

from collections.abc import Mapping

from ...harness.medians import Column, percentile
from .visit import Figures

TITLE = "medians of the rounds; latency from the source's step to the reader, before the write"
COLUMNS: Mapping[str, Column[Figures]] = {
    "cpu_us": (">CPU µs an item", lambda each: each.cpu_us()),
    "cpu_us_without_writes": (">without writes", lambda each: each.cpu_us(writes=False)),
    "source_cpu_us": (">source", lambda each: _cpu_us(each, "source")),
    "reader_cpu_us": (">reader", lambda each: _cpu_us(each, "reader")),
    "items_a_second": (">items a second", lambda each: each.items / each.took_ns * 1e9),
    "latency_p50_us": (">p50 µs", lambda each: percentile(each.latencies_us, 0.5)),
    "latency_p99_us": (">p99 µs", lambda each: percentile(each.latencies_us, 0.99)),
    "memory_nbytes_a_stream": (">bytes a stream", lambda each: each.memory_nbytes / each.streams),
    "errors": (">errors", lambda each: float(each.errors)),
}


def _cpu_us(figures: Figures, process: str) -> float | None:
    return figures.cpu_us(process) if process in figures.cpu_ns else None
