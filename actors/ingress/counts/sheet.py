"""Counters, gauges and histograms whose labels are known beforehand: each has its place in one row of numbers.

Such a row is as long as what was declared, whatever clients send; each process of an ingress writes one of its own, and
whoever is asked adds them up. prometheus_client's own classes grow with what they are given, and keep it where it dies
with its process; their files for several processes (`PROMETHEUS_MULTIPROC_DIR`) are named by pids, and grow with these.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, product
from typing import Any, Literal, NamedTuple, TypeAlias

from ....runtime.telemetry.exposition import Family

# What a label says of a value that was not declared, where it has it.
OTHER = "other"

Numbers: TypeAlias = "list[float] | memoryview[float]"
Labels = Mapping[str, Sequence[str]]


class Row(NamedTuple):
    """What one replica has counted. `is_here`: its process runs, so its gauges hold."""

    replica: int
    numbers: Sequence[float]
    is_here: bool


@dataclass(frozen=True, slots=True)
class _Declared:
    """One family. `places` says where the numbers of each combination of labels begin."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    meaning: str
    labels: tuple[str, ...]
    places: dict[tuple[str, ...], int]
    bounds: tuple[float, ...] = ()
    by_replica: bool = False
    shows_unused: bool = True

    @property
    def width(self) -> int:
        """How many numbers a combination has: a histogram's sum, and its buckets, that of infinity among them."""
        return len(self.bounds) + 2 if self.kind == "histogram" else 1


class Sheet:
    """Declares, writes and adds up. All is declared before it is laid into its memory; one thread writes."""

    def __init__(self) -> None:
        self.length = 0  # of a row, in numbers
        self.numbers: Numbers = []  # this process's row
        self._families: list[_Declared] = []

    def counter(self, name: str, meaning: str, labels: Labels | None = None, **how: bool) -> Counter:
        """`by_replica`: shown of each and not as a sum; with `shows_unused=False` only where it is above 0."""
        return Counter(self, self._declare(f"{name}_total", "counter", meaning, labels, **how))

    def gauge(self, name: str, meaning: str, labels: Labels | None = None, **how: bool) -> Gauge:
        """As a counter; of replicas that are away nothing is shown."""
        return Gauge(self, self._declare(name, "gauge", meaning, labels, **how))

    def histogram(
        self, name: str, meaning: str, bounds: tuple[float, ...], labels: Labels | None = None, **how: bool
    ) -> Histogram:
        """`bounds` are those of its buckets, ascending; infinity is added."""
        return Histogram(self, self._declare(name, "histogram", meaning, labels, bounds=bounds, **how))

    def lie_in(self, numbers: Numbers) -> None:
        """What was counted there before goes on; gauges begin at 0."""
        self.numbers = numbers
        for family in self._families:
            if family.kind == "gauge":
                for at in family.places.values():
                    numbers[at] = 0.0

    def families(self, rows: Sequence[Row]) -> list[Family]:
        """All replicas' numbers, added up or each by itself, as each family was declared."""
        return [_shown(family, rows) for family in self._families]

    def _declare(
        self,
        name: str,
        kind: Literal["counter", "gauge", "histogram"],
        meaning: str,
        labels: Labels | None,
        **how: Any,
    ) -> _Declared:
        places: dict[tuple[str, ...], int] = {}
        declared = _Declared(name, kind, meaning, tuple(labels or ()), places, **how)
        for combination in product(*(labels or {}).values()):
            if combination not in places:
                places[combination] = self.length
                self.length += declared.width
        self._families.append(declared)
        return declared


class _Written:
    """What the declared families have in common for who writes. Each request and each connection writes several times,
    so what is usual is done without a further call.
    """

    __slots__ = ("_declared", "_places", "_sheet")

    def __init__(self, sheet: Sheet, declared: _Declared) -> None:
        self._sheet, self._declared = sheet, declared
        self._places = declared.places

    def _place_of_other(self, labels: tuple[str, ...]) -> int:
        known = [{each[index] for each in self._declared.places} for index in range(len(labels))]
        return self._declared.places[
            tuple(value if value in values else OTHER for value, values in zip(labels, known, strict=True))
        ]


class Counter(_Written):
    """What only grows."""

    def inc(self, *labels: str, by: float = 1.0) -> None:
        """Labels in the order in which they were declared; one that was not counts as `OTHER`, if that was."""
        at = self._places.get(labels)
        self._sheet.numbers[self._place_of_other(labels) if at is None else at] += by


class Gauge(_Written):
    """What goes up and down."""

    def set(self, value: float, *labels: str) -> None:
        """Shows the value, from now on."""
        at = self._places.get(labels)
        self._sheet.numbers[self._place_of_other(labels) if at is None else at] = value


class Histogram(_Written):
    """How often a value was up to each bound. Its count is that of its buckets, and so never at odds with them."""

    def observe(self, value: float, *labels: str) -> None:
        """The sum first: whoever is killed in between has left a sum without its count, and no count without a sum."""
        numbers, at = self._sheet.numbers, self._places.get(labels)
        if at is None:
            at = self._place_of_other(labels)
        numbers[at] += value
        numbers[at + 1 + bisect_left(self._declared.bounds, value)] += 1.0


def _shown(family: _Declared, rows: Iterable[Row]) -> Family:
    shown = Family(family.name, family.kind, family.meaning)
    rows = [each for each in rows if each.is_here or family.kind != "gauge"]
    groups = [({"replica": str(each.replica)}, [each]) for each in rows] if family.by_replica else [({}, rows)]
    for labels, members in groups:
        for combination, at in family.places.items():
            numbers = [sum(each.numbers[at + index] for each in members) for index in range(family.width)]
            if family.shows_unused or any(numbers):
                _add(shown, family, numbers, {**labels, **dict(zip(family.labels, combination, strict=True))})
    return shown


def _add(shown: Family, family: _Declared, numbers: list[float], labels: dict[str, str]) -> None:
    if family.kind == "histogram":
        total, *buckets = numbers
        bounds = (*family.bounds, math.inf)
        shown.add_histogram(dict(zip(bounds, map(int, accumulate(buckets)), strict=True)), total, labels)
    else:
        shown.add(numbers[0], labels)
