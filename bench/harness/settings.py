"""How much a topology measures, and the command that every topology is."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

from ...cli.rendering.presentation import format_option, print_json
from .contestant import Seats
from .machine import describe, lines
from .measure import VISIT_WITHIN_S, Cell, Results, Visit, measure
from .report import Report
from .rival import Rival, Visited
from .rival_options import BenchCommand, rival_of, rival_options

SIZES = (64, 4 << 10, 64 << 10, 1 << 20, 16 << 20)
_SIZES_TEXT = "64,4KiB,64KiB,1MiB,16MiB"
_UNITS = {"": 1, "b": 1, "kib": 1 << 10, "mib": 1 << 20}
_LARGEST_NBYTES = 64 << 20
_QUICK_ROUNDS = 2


@dataclass(frozen=True)
class Settings:
    """What the options say. `quick` shows whether it works, not how fast it is.

    `rival` is another checkout to measure beside; `visited` is there where this one is that other checkout.
    """

    rounds: int
    seed: int = 1
    quick: bool = False
    sizes: tuple[int, ...] = SIZES
    rival: Rival | None = None
    visited: Visited | None = None

    def measure(self, cells: Sequence[Cell], visit: Visit, within_s: float = VISIT_WITHIN_S) -> Results:
        """Visits every cell once a round, also another checkout's; in that one's process, as it is ordered. A visit may
        take so many seconds.
        """
        if self.visited is not None:
            return self.visited.serve(cells, visit)
        if self.rival is None:
            return measure(cells, self.rounds, self.seed, visit, within_s=within_s)
        self.rival.begin()
        results = measure(cells, self.rounds, self.seed, visit, self.rival, within_s)
        self.rival.end()
        return results

    def few(self, usual: int, quick: int) -> int:
        """A number of repetitions."""
        return quick if self.quick else usual


Topology = Callable[[Settings], Report]


def sizes_of(text: str) -> tuple[int, ...]:
    """64,64KiB,1MiB as numbers of bytes, each once. Raises BadParameter."""
    return tuple(dict.fromkeys(_nbytes(each) for each in text.split(",")))


def _nbytes(text: str) -> int:
    found = re.fullmatch(r"(\d+) ?([a-z]*)", text.strip().lower())
    if found is None or found[2] not in _UNITS or not 0 < int(found[1]) * _UNITS[found[2]] <= _LARGEST_NBYTES:
        raise click.BadParameter(f"{text!r} is no size from 1 to 64MiB, such as 64, 64KiB or 1MiB")
    return int(found[1]) * _UNITS[found[2]]


def command_of(
    topology: Topology,
    *,
    rounds: int,
    sized: bool = False,
    visits: bool = True,
    extra: Sequence[click.Option] = (),
) -> click.Command:
    """The command of a topology: its docstring is the help, its options are the same everywhere.

    `visits` says whether it measures by `Settings.measure`, and so beside another checkout too. `extra` options are
    passed on to `topology` by keyword.
    """

    @format_option
    def call(
        rounds: int,
        seed: int,
        quick: bool,
        output: Path | None,
        plot: Path | None,
        form: str,
        against: Path | None = None,
        visited_by: int | None = None,
        sizes: tuple[int, ...] = SIZES,
        **others: object,
    ) -> None:
        visited = None if visited_by is None else Visited(visited_by)
        with rival_of(against) as rival:
            settings = Settings(_QUICK_ROUNDS if quick else rounds, seed, quick, sizes, rival, visited)
            report = run(topology, settings, **others)
        publish(report, form=form, output=output, plot=plot)

    options = [
        *([_sizes_option()] if sized else []),
        *extra,
        click.Option(
            ["--rounds"],
            type=click.IntRange(min=1),
            default=rounds,
            show_default=True,
            help="Visits to each contestant.",
        ),
        click.Option(["--seed"], default=1, show_default=True, help="Of the order of visits."),
        click.Option(["--quick"], is_flag=True, help=f"{_QUICK_ROUNDS} short rounds: whether it works."),
        click.Option(["--output"], type=_FILE, help="Write the document there, too."),
        click.Option(["--plot"], type=_FILE, help="Draw the result there: .svg or .png."),
    ]
    result = click.command(cls=BenchCommand, help=topology.__doc__)(rival_options(call) if visits else call)
    result.params = [*options, *result.params]
    return result


_FILE = click.Path(dir_okay=False, writable=True, path_type=Path)


def _sizes_option() -> click.Option:
    return click.Option(
        ["--sizes"],
        default=_SIZES_TEXT,
        show_default=True,
        callback=lambda _ctx, _option, text: sizes_of(text),
        help="Payloads, comma between.",
    )


def run(topology: Topology, settings: Settings, **others: object) -> Report:
    """Measures, and notes on what and how."""
    machine = describe(Seats.choose())
    with _ends_cleanly():
        report = topology(settings, **others)
    if settings.rival is not None:
        report.beside(settings.rival.describe(), settings.rival.results)
    report.machine = machine
    report.about = {"rounds": settings.rounds, "seed": settings.seed, "quick": settings.quick}
    return report


def publish(report: Report, *, form: str, output: Path | None, plot: Path | None) -> None:
    """Prints a report, and writes what was asked for."""
    if output is not None:
        output.write_text(json.dumps(report.document(), indent=1) + "\n")
    if plot is not None:
        from .plot import draw

        draw(report, plot)
    if form == "json":
        print_json(report.document())
    else:
        report.show(lines(report.machine))


@contextmanager
def _ends_cleanly() -> Iterator[None]:
    """SIGTERM ends as Ctrl-C does: peers leave files in /dev/shm that somebody has to remove."""
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def pinned(cpu: int) -> Iterator[None]:
    """Keeps this process on one CPU for a while."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
