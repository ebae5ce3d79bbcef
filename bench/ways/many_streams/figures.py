"""What the visits to all ways have measured: medians of the rounds, as a table and as a document."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import InitVar, dataclass, field
from statistics import median
from typing import Any

from ...harness.report import Table, number_text
from .visit import Figures
from .way import Load, Way

# By key of the document: the head in the table, and what it is.
_COLUMNS: dict[str, tuple[str, Callable[[Figures], float | None]]] = {
    "cpu_us": (">CPU µs an item", lambda each: each.cpu_us()),
    "cpu_us_without_writes": (">without writes", lambda each: each.cpu_us(writes=False)),
    "source_cpu_us": (">source", lambda each: _cpu_us(each, "source")),
    "reader_cpu_us": (">reader", lambda each: _cpu_us(each, "reader")),
    "items_a_second": (">items a second", lambda each: each.items / each.took_ns * 1e9),
    "latency_p50_us": (">p50 µs", lambda each: _percentile(each.latencies_us, 0.5)),
    "latency_p99_us": (">p99 µs", lambda each: _percentile(each.latencies_us, 0.99)),
    "memory_nbytes_a_stream": (">bytes a stream", lambda each: each.memory_nbytes / each.streams),
    "errors": (">errors", lambda each: float(each.errors)),
}


@dataclass
class Shown:
    """The figures of each load and way, a visit each, in the order of `rows`."""

    rows: InitVar[Iterable[tuple[Load, type[Way]]]]
    all: dict[tuple[Load, type[Way]], list[Figures]] = field(init=False)

    def __post_init__(self, rows: Iterable[tuple[Load, type[Way]]]) -> None:
        self.all = {each: [] for each in rows}

    def add(self, load: Load, way: type[Way], figures: Figures) -> None:
        self.all[load, way].append(figures)

    def plain(self) -> list[dict[str, Any]]:
        """The document: the medians."""
        return [
            {
                "streams": load.streams,
                "items_a_second_of_each": load.pace,
                "contestant": way.name,
                **{key: _median(figures, pick) for key, (_, pick) in _COLUMNS.items()},
            }
            for (load, way), figures in self.all.items()
        ]


def table_of(shown: Shown) -> Table:
    """For people."""
    rows = [
        (
            f"{each['streams']:,} x {each['items_a_second_of_each']:g}/s",
            each["contestant"],
            *("-" if each[key] is None else number_text(each[key]) for key in _COLUMNS),
        )
        for each in shown.plain()
    ]
    heads = ("streams", "contestant", *(head for head, _ in _COLUMNS.values()))
    return Table("medians of the rounds; latency from the source's step to the reader, before the write", heads, rows)


def _median(figures: Sequence[Figures], pick: Callable[[Figures], float | None]) -> float | None:
    found = [value for each in figures if (value := pick(each)) is not None]
    return median(found) if found else None


def _cpu_us(figures: Figures, process: str) -> float | None:
    return figures.cpu_us(process) if process in figures.cpu_ns else None


def _percentile(samples: Sequence[float], share: float) -> float | None:
    """By nearest rank."""
    return sorted(samples)[math.ceil(share * len(samples)) - 1] if samples else None
