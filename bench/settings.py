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

from ..runtime.cli.presentation import format_option, print_json
from .contestant import Seats
from .machine import describe, lines
from .report import Report

SIZES = (64, 4 << 10, 64 << 10, 1 << 20, 16 << 20)
_SIZES_TEXT = "64,4KiB,64KiB,1MiB,16MiB"
_UNITS = {"": 1, "b": 1, "kib": 1 << 10, "mib": 1 << 20}
_LARGEST_NBYTES = 64 << 20
_QUICK_ROUNDS = 2


@dataclass(frozen=True)
class Settings:
    """What the options say. `quick` shows whether it works, not how fast it is."""

    rounds: int
    seed: int = 1
    quick: bool = False
    sizes: tuple[int, ...] = SIZES

    def few(self, usual: int, quick: int) -> int:
        """A number of repetitions."""
        return quick if self.quick else usual


Measure = Callable[[Settings], Report]


def sizes_of(text: str) -> tuple[int, ...]:
    """64,64KiB,1MiB as numbers of bytes, each once. Raises BadParameter."""
    return tuple(dict.fromkeys(_nbytes(each) for each in text.split(",")))


def _nbytes(text: str) -> int:
    found = re.fullmatch(r"(\d+) ?([a-z]*)", text.strip().lower())
    if found is None or found[2] not in _UNITS or not 0 < int(found[1]) * _UNITS[found[2]] <= _LARGEST_NBYTES:
        raise click.BadParameter(f"{text!r} is no size from 1 to 64MiB, such as 64, 64KiB or 1MiB")
    return int(found[1]) * _UNITS[found[2]]


def command_of(
    measure: Measure, *, rounds: int, sized: bool = False, extra: Sequence[click.Option] = ()
) -> click.Command:
    """The command of a topology: its docstring is the help, its options are the same everywhere.

    `extra` options are passed on to `measure` by keyword.
    """

    @format_option
    def call(
        rounds: int,
        seed: int,
        quick: bool,
        output: Path | None,
        plot: Path | None,
        form: str,
        sizes: tuple[int, ...] = SIZES,
        **others: object,
    ) -> None:
        settings = Settings(_QUICK_ROUNDS if quick else rounds, seed, quick, sizes)
        report = run(measure, settings, **others)
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
    result = click.command(help=measure.__doc__)(call)
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


def run(measure: Measure, settings: Settings, **others: object) -> Report:
    """Measures, and notes on what and how."""
    machine = describe(Seats.choose())
    with _ends_cleanly():
        report = measure(settings, **others)
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
