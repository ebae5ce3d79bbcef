"""A checkout beside another: by how much each row has become slower, and how sure that is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .measure import Cell, Measurement, Results

# Above this the whole interval of a row must not lie.
MOST = 1.05
# Where both are equally fast, all of n rounds fall on one side with a probability of 2 / 2^n: 6 make that 3 %.
LEAST_ROUNDS = 6
_RESAMPLES = 10_000
_PERCENTILES = (2.5, 97.5)
_HEADS = ("case", "contestant", ">µs here", ">µs there", ">ratio", ">95 % interval", "")


@dataclass(frozen=True)
class Compared:
    """A row of both. `ratio` is the median of the rounds' ratios, this checkout's time by the other's, so that above 1
    this one is slower; 95 % of its bootstrap distribution lies from `low` to `high`.
    """

    cell: Cell
    ours_us: float
    theirs_us: float
    ratio: float
    low: float
    high: float
    rounds: int

    @property
    def is_slower(self) -> bool:
        """Whether the whole interval lies above what is allowed, and rests on enough rounds to say so."""
        return self.low > MOST and self.rounds >= LEAST_ROUNDS

    def plain(self) -> dict[str, Any]:
        return {
            "case": self.cell.case.text,
            "contestant": self.cell.contestant,
            "median_us": self.ours_us,
            "other_median_us": self.theirs_us,
            "ratio": self.ratio,
            "interval_95": [self.low, self.high],
            "is_slower": self.is_slower,
        }


def compared(ours: Results, theirs: Results) -> Iterator[Compared]:
    """Every row that both have measured."""
    for cell, mine in ours.items():
        if cell in theirs:
            ratios = _ratios(mine, theirs[cell])
            low, high = interval(ratios)
            yield Compared(cell, mine.median, theirs[cell].median, float(np.median(ratios)), low, high, len(ratios))


def _ratios(mine: Measurement, theirs: Measurement) -> list[float]:
    return [one / other for one, other in zip(mine.medians, theirs.medians, strict=True)]


def interval(ratios: Sequence[float]) -> tuple[float, float]:
    """The 95 % percentile interval of the median, by bootstrap over rounds (Efron and Tibshirani 1993, chapter 13).

    The resamples are the same at each call, so that a document can be computed again.
    """
    dice = np.random.default_rng(1)
    picks = dice.integers(0, len(ratios), (_RESAMPLES, len(ratios)))
    medians = np.median(np.asarray(ratios)[picks], axis=1)
    low, high = np.percentile(medians, _PERCENTILES)
    return float(low), float(high)


@dataclass(frozen=True)
class Comparison:
    """With another checkout, `name` for people."""

    name: str
    rows: Sequence[Compared]

    def plain(self) -> dict[str, Any]:
        return {"checkout": self.name, "rows": [each.plain() for each in self.rows]}

    def verdict(self) -> str:
        """One line for people."""
        rounds = min((each.rounds for each in self.rows), default=0)
        if rounds < LEAST_ROUNDS:
            return f"{rounds} rounds are too few to tell whether a row is slower; take --rounds {LEAST_ROUNDS} or more"
        slower = [f"{each.cell.contestant} at {each.cell.case.text}" for each in self.rows if each.is_slower]
        if slower:
            count = f"{len(slower)} of {len(self.rows)} rows"
            return f"slower: the whole interval of {count} lies above {MOST}: {', '.join(slower)}"
        return f"no row of {len(self.rows)} is slower: no whole interval lies above {MOST}"

    def show(self, title_of: Mapping[str, str]) -> None:
        """Prints a row for each, and the verdict."""
        import click

        from ...cli.rendering.presentation import print_table

        rows = []
        for each in self.rows:
            ratios = (f"{each.ratio:.3f}", f"{each.low:.3f} to {each.high:.3f}", "slower" if each.is_slower else "")
            contestant = title_of.get(each.cell.contestant, each.cell.contestant)
            rows.append((each.cell.case.text, contestant, f"{each.ours_us:,.2f}", f"{each.theirs_us:,.2f}", *ratios))
        print_table(_HEADS, rows, title=f"\nthis checkout against {self.name}, same rounds; above 1 this one is slower")
        click.echo("\n" + self.verdict())
