"""What a topology found: as a table for people, as a document for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .comparison import Comparison, compared
from .measure import NOISY_FROM, Case, Cell, Measurement, Results


@dataclass(frozen=True)
class Bar:
    """What is demanded of a figure: at most, or at least, so much."""

    what: str
    value: float
    most: float | None = None
    least: float | None = None
    percent: bool = False

    @property
    def is_met(self) -> bool:
        return (self.most is None or self.value <= self.most) and (self.least is None or self.value >= self.least)

    def plain(self) -> dict[str, Any]:
        bound = {"most": self.most} if self.least is None else {"least": self.least}
        return {"what": self.what, "value": self.value, **bound, "is_met": self.is_met}

    def text(self) -> str:
        """One line for people."""
        bound = (
            f"at most {self._number(self.most)}" if self.most is not None else f"at least {self._number(self.least)}"
        )
        return f"{self.what}: {self._number(self.value)}, {bound} demanded: {'met' if self.is_met else 'NOT met'}"

    def _number(self, value: float | None) -> str:
        if value is None:
            return "-"
        return f"{value:.3%}" if self.percent else f"{value:,.0f}" if value >= 1000 else f"{value:.2f}"


@dataclass(frozen=True)
class Table:
    """Further figures for people, which are no times to compare."""

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass
class Report:
    """The result of one topology. `unit` is what a sample is the time of; `title_of` names contestants for people.

    Ratios compare with the `baselines`, contestants by name. `rates` adds a column: how many fit into a second.
    """

    topology: str
    unit: str
    results: Results
    title_of: dict[str, str]
    baselines: Sequence[str] = ()
    rates: bool = False
    left_out: dict[str, str] = field(default_factory=dict)
    bars: list[Bar] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)
    comparison: Comparison | None = None

    def beside(self, name: str, theirs: Results) -> None:
        """Compares with what another checkout, called so, has measured in the same rounds."""
        self.comparison = Comparison(name, list(compared(self.results, theirs)))

    def document(self) -> dict[str, Any]:
        """Everything, with the median of each round; times are in microseconds."""
        return {
            "bench": self.topology,
            "topology": self.topology,
            "unit": f"µs {self.unit}",
            **self.about,
            "machine": self.machine,
            "results": [self._entry(cell) for cell in self.results],
            "figures": self.figures,
            "bars": [each.plain() for each in self.bars],
            "left_out": self.left_out,
            "against": None if self.comparison is None else self.comparison.plain(),
            "warnings": self.warnings(),
        }

    def _entry(self, cell: Cell) -> dict[str, Any]:
        measured = self.results[cell]
        return {
            "case": cell.case.text,
            "x": cell.case.x,
            "contestant": cell.contestant,
            "samples": measured.samples,
            "verified": measured.verified,
            "median_us": measured.median,
            "mad_us": measured.mad,
            "p99_us": measured.p99,
            **({"a_second": 1e6 / measured.median} if self.rates else {}),
            "times": self.times(cell),
            "rounds_us": measured.medians,
        }

    def times(self, cell: Cell) -> dict[str, float | None]:
        """How many times longer a cell takes than each baseline in the same case."""
        theirs = {name: self.results.get(Cell(cell.case, name)) for name in self.baselines}
        return {name: None if each is None else self.results[cell].times(each) for name, each in theirs.items()}

    def ratio(self, case: Case, contestant: str, other: str) -> float | None:
        """How many times longer one contestant takes than another; None where one of them did not take part."""
        mine, theirs = (self.results.get(Cell(case, each)) for each in (contestant, other))
        return None if mine is None or theirs is None else mine.times(theirs)

    def heads(self) -> tuple[str, ...]:
        ratios = (f">× {self.title_of.get(each, each)}" for each in self.baselines)
        return ("case", "contestant", ">median µs", ">MAD", ">p99", *((">a second",) if self.rates else ()), *ratios)

    def rows(self) -> list[tuple[str, ...]]:
        """The table's rows; a case stands only where it changes."""
        result, before = [], None
        for cell, measured in self.results.items():
            case = cell.case.text if cell.case != before else ""
            mad = number_text(measured.mad) + (" !" if measured.is_noisy else "")
            rate = (number_text(1e6 / measured.median),) if self.rates else ()
            figures = (number_text(measured.median), mad, number_text(measured.p99), *rate)
            ratios = tuple(ratio_text(each) for each in self.times(cell).values())
            result.append((case, self.title_of[cell.contestant], *figures, *ratios))
            before = cell.case
        return result

    def warnings(self) -> list[str]:
        noisy = [cell for cell, measured in self.results.items() if measured.is_noisy]
        if not noisy:
            return []
        worst = max(noisy, key=lambda each: self.results[each].mad / self.results[each].median)
        measured = self.results[worst]
        deviation = f"{measured.mad / measured.median:.0%} with {measured.samples} samples"
        said = (
            f"a noisy machine: the rounds of {len(noisy)} of {len(self.results)} rows deviate by more than "
            f"{NOISY_FROM:.0%}, most {worst.contestant} at {worst.case.text} ({deviation}); "
            "trust the ratios more than the times, or take more --rounds on a quiet machine"
        )
        return [said]

    def show(self, machine_lines: Sequence[str]) -> None:
        """Prints the table, the figures, the bars, the machine and the warnings."""
        import click

        from ...cli.rendering.presentation import print_table

        if self.results:
            print_table(self.heads(), self.rows(), title=f"{self.topology}, µs {self.unit}")
            click.echo("\n" + self._how_much())
        for table in self.tables:
            print_table(table.heads, table.rows, title="\n" + table.title)
        if self.comparison is not None:
            self.comparison.show(self.title_of)
        said = [*self.notes, *(each.text() for each in self.bars)]
        left_out = [f"left out: {name} ({why})" for name, why in self.left_out.items()]
        for line in [*said, *left_out, *machine_lines, *(f"warning: {each}" for each in self.warnings())]:
            click.echo(line)

    def _how_much(self) -> str:
        fewest, most = (pick(each.samples for each in self.results.values()) for pick in (min, max))
        samples = str(most) if fewest == most else f"{fewest} to {most}"
        count = len(next(iter(self.results.values())).rounds)
        return f"{samples} samples each, in {count} interleaved rounds; every answer was checked"


def flatness(results: Results, contestant: str, first: float, last: float) -> float | None:
    """How many times longer the case at `last` takes than that at `first`; None where one was not measured."""
    at: dict[float, Measurement] = {
        cell.case.x: each for cell, each in results.items() if cell.contestant == contestant
    }
    return at[last].times(at[first]) if first in at and last in at else None


def size_text(nbytes: int) -> str:
    """65536 is "64 KiB"; what is no whole number of a unit stays in bytes."""
    for unit, size in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if nbytes >= size and nbytes % size == 0:
            return f"{nbytes // size} {unit}"
    return f"{nbytes} B"


def size_cases(sizes: Sequence[int]) -> list[Case]:
    """One case a size."""
    return [Case(size_text(each), each) for each in sizes]


def number_text(value: float) -> str:
    """Three digits at least."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def ratio_text(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}" if value < 10 else f"{value:.0f}"
