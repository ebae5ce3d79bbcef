"""Interleaved measuring: every round visits each contestant in a random order, so that what the machine does meanwhile
falls on all of them. Contestants are compared within a round, and the medians of the rounds are what is reported.
"""

from __future__ import annotations

import math
import os
import random
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from time import perf_counter_ns
from types import FrameType

import numpy as np

from .contestant import BenchError, Contestant, Mode, checksum

# A visit takes well under a second; whoever has not answered by then never will.
_VISIT_WITHIN_S = 60
_WARM_UP_TRIPS = 10
# Of the rounds' medians: above this, figures of two runs are not comparable. A quiet machine stays below a tenth.
NOISY_FROM = 0.15


@dataclass(frozen=True)
class Cell:
    """One thing that is measured; `contestant` by name."""

    nbytes: int
    mode: Mode
    contestant: str


@dataclass
class Measurement:
    """All samples of a cell, in microseconds, by round. `verified` answers were compared, warm-up included."""

    rounds: list[list[float]] = field(default_factory=list)
    verified: int = 0

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


def rounds_of(cells: Sequence[Cell], rounds: int, seed: int) -> Iterator[list[Cell]]:
    """Every cell once a round: sizes and modes in random order, contestants of one size and mode close together."""
    dice = random.Random(seed)
    groups: dict[tuple[int, Mode], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.nbytes, cell.mode), []).append(cell)
    for _ in range(rounds):
        order = list(groups.values())
        dice.shuffle(order)
        yield [cell for group in order for cell in dice.sample(group, len(group))]


def visit(contestant: Contestant, mode: Mode, nbytes: int, trips: int, into: Measurement) -> None:
    """Measures so many round trips, after some that warm up. Raises BenchError for a wrong answer, or none."""
    warm_up = _WARM_UP_TRIPS + trips // 5
    with _limited(contestant), _Sleeper(contestant) as sleeper:
        contestant.begin(mode, nbytes, warm_up + trips)
        took = _trips(contestant, nbytes, warm_up + trips, sleeper if mode == Mode.PARKED else None)
    into.verified += len(took)
    into.rounds.append(took[warm_up:])


def _trips(contestant: Contestant, nbytes: int, count: int, sleeper: _Sleeper | None) -> list[float]:
    payload = np.zeros(nbytes, np.uint8)
    took = []
    for number in range(count):
        payload[-1] = number >> 8 & 255
        payload[0] = number & 255
        expected = checksum(payload)
        if sleeper is not None:
            sleeper.wait()
        began = perf_counter_ns()
        answer = contestant.trip(payload)
        took.append((perf_counter_ns() - began) / 1e3)
        if answer != expected:
            raise BenchError(f"{contestant.title} answered {answer} to {nbytes} bytes whose checksum is {expected}")
    return took


class _Sleeper:
    """Tells when the answering process sleeps in the kernel: then a request must wake it, whatever way it comes."""

    def __init__(self, contestant: Contestant) -> None:
        self._title = contestant.title
        self._fd = os.open(f"/proc/{contestant.pid}/stat", os.O_RDONLY | os.O_CLOEXEC)

    def wait(self) -> None:
        while (state := self._state()) != b"S":
            if state in (b"", b"Z", b"X"):
                raise BenchError(f"{self._title}: the process that answers has ended")
            os.sched_yield()

    def _state(self) -> bytes:
        try:
            return os.pread(self._fd, 512, 0).rpartition(b") ")[2][:1]
        except ProcessLookupError:
            return b""

    def __enter__(self) -> _Sleeper:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


@contextmanager
def _limited(contestant: Contestant) -> Iterator[None]:
    """Some ways wait without a timeout, which would cost them time: a signal ends a wait that is in vain."""

    def give_up(_number: int, _frame: FrameType | None) -> None:
        raise BenchError(
            f"{contestant.title} has not answered for {_VISIT_WITHIN_S} s; its process is {contestant.pid}"
        )

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, _VISIT_WITHIN_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
