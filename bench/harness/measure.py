"""Interleaved measuring: every round visits each contestant in a random order, so that what the machine does meanwhile
falls on all of them. Contestants are compared within a round, and the medians of the rounds are what is reported.
"""

from __future__ import annotations

import math
import random
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from types import FrameType
from typing import Protocol

from .contestant import BenchError

# A visit takes seconds at most; whoever has not answered by then never will.
VISIT_WITHIN_S = 120.0
# Of the rounds' medians: above this, figures of two runs are not comparable. A quiet machine stays below a tenth.
NOISY_FROM = 0.15


@dataclass(frozen=True)
class Case:
    """What all contestants are given alike: a size, a number of readers. `x` is where it stands in a plot."""

    text: str
    x: float


@dataclass(frozen=True)
class Cell:
    """One thing that is measured; `contestant` by name."""

    case: Case
    contestant: str


@dataclass
class Measurement:
    """All samples of a cell, in microseconds, by round. `verified` answers were compared, warm-up included."""

    rounds: list[list[float]] = field(default_factory=list)
    verified: int = 0

    def add(self, samples: list[float], verified: int) -> None:
        """One visit."""
        self.rounds.append(samples)
        self.verified += verified

    @property
    def medians(self) -> list[float]:
        """One a round."""
        return [median(each) for each in self.rounds]

    @property
    def samples(self) -> int:
        return sum(map(len, self.rounds))

    @property
    def median(self) -> float:
        return median(self.medians)

    @property
    def mad(self) -> float:
        """The median of the absolute deviations of the rounds' medians from theirs."""
        return median(abs(each - self.median) for each in self.medians)

    @property
    def p99(self) -> float:
        """Of all samples, by nearest rank."""
        samples = sorted(each for one in self.rounds for each in one)
        return samples[math.ceil(0.99 * len(samples)) - 1]

    @property
    def is_noisy(self) -> bool:
        return self.mad > NOISY_FROM * self.median

    def times(self, other: Measurement) -> float:
        """How many times longer than `other` it takes: compared round by round, then the median."""
        return median(mine / theirs for mine, theirs in zip(self.medians, other.medians, strict=True))


Results = dict[Cell, Measurement]
# Measures a cell once: samples, and how many answers were checked.
Visit = Callable[[Cell], tuple[list[float], int]]


def cells_of(cases: Sequence[Case], contestants: Sequence[str]) -> list[Cell]:
    """Every contestant in every case."""
    return [Cell(case, each) for case in cases for each in contestants]


def rounds_of(cells: Sequence[Cell], rounds: int, seed: int) -> Iterator[list[Cell]]:
    """Every cell once a round: cases in random order, the contestants of one case close together."""
    dice = random.Random(seed)
    groups: dict[Case, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(cell.case, []).append(cell)
    for _ in range(rounds):
        order = list(groups.values())
        dice.shuffle(order)
        yield [cell for group in order for cell in dice.sample(group, len(group))]


class Other(Protocol):
    """Who has contestants of the same names to visit, and keeps what it measures."""

    def can_visit(self, cell: Cell) -> bool: ...

    def visit(self, cell: Cell) -> None: ...


def measure(
    cells: Sequence[Cell],
    rounds: int,
    seed: int,
    visit: Visit,
    other: Other | None = None,
    within_s: float = VISIT_WITHIN_S,
) -> Results:
    """Visits every cell once a round, and the `other` one of the same name right before or after, as chance has it.

    Raises BenchError for whoever does not answer within `within_s`.
    """
    results = {cell: Measurement() for cell in cells}

    def visit_ours(cell: Cell) -> None:
        results[cell].add(*visit(cell))

    dice = random.Random(seed)
    for number, order in enumerate(rounds_of(cells, rounds, seed), 1):
        say_progress(number, rounds)
        for cell in order:
            sides = [visit_ours] if other is None or not other.can_visit(cell) else [visit_ours, other.visit]
            for side in dice.sample(sides, len(sides)):
                with _limited(cell.contestant, within_s):
                    side(cell)
    return results


def say_progress(number: int, rounds: int) -> None:
    """To whom looks on, at the beginning of a round."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\rround {number} of {rounds}" + "\n" * (number == rounds))
        sys.stderr.flush()


@contextmanager
def _limited(contestant: str, within_s: float) -> Iterator[None]:
    """Some ways wait without a timeout, which would cost them time: a signal ends a wait that is in vain."""

    def give_up(_number: int, _frame: FrameType | None) -> None:
        raise BenchError(f"{contestant} has not answered for {within_s:g} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, within_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
