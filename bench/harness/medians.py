"""What the visits to contestants have measured beside the time that is compared: medians of the rounds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from statistics import median
from typing import Any, Generic, TypeVar

from .load import Load
from .report import Table, number_text

Figures = TypeVar("Figures")
# The head in the table, and what it is of one visit; None where it has none.
Column = tuple[str, Callable[[Figures], float | None]]


@dataclass
class Medians(Generic[Figures]):
    """Figures of each load and contestant, one a visit, in the order of `rows`; `columns` by key of the document."""

    columns: Mapping[str, Column[Figures]]
    rows: InitVar[Iterable[tuple[Load, str]]]
    all: dict[tuple[Load, str], list[Figures]] = field(init=False)

    def __post_init__(self, rows: Iterable[tuple[Load, str]]) -> None:
        self.all = {each: [] for each in rows}

    def add(self, load: Load, contestant: str, figures: Figures) -> None:
        self.all[load, contestant].append(figures)

    def of(self, load: Load, contestant: str) -> dict[str, Any] | None:
        """By key; None where nothing was measured."""
        figures = self.all.get((load, contestant))
        return {key: _median(figures, pick) for key, (_, pick) in self.columns.items()} if figures else None

    def plain(self) -> list[dict[str, Any]]:
        """The document: a row for all that were measured."""
        return [
            {"streams": load.streams, "items_a_second_of_each": load.pace, "contestant": contestant, **found}
            for load, contestant in self.all
            if (found := self.of(load, contestant)) is not None
        ]

    def table(self, title: str) -> Table:
        """For people."""
        rows = [
            (
                f"{each['streams']:,} x {each['items_a_second_of_each']:g}/s",
                each["contestant"],
                *("-" if each[key] is None else number_text(each[key]) for key in self.columns),
            )
            for each in self.plain()
        ]
        heads = ("streams", "contestant", *(head for head, _ in self.columns.values()))
        return Table(title, heads, rows)


def percentile(samples: Sequence[float], share: float) -> float | None:
    """By nearest rank."""
    return sorted(samples)[math.ceil(share * len(samples)) - 1] if samples else None


def _median(figures: Sequence[Figures], pick: Callable[[Figures], float | None]) -> float | None:
    found = [value for each in figures if (value := pick(each)) is not None]
    return median(found) if found else None
