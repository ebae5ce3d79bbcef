"""`slabwire bench hop`: one payload to another process and a small answer back, in all ways that are compared."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import click

from ..runtime.cli.presentation import format_option, print_json
from .bare_lane import BareLane
from .contestant import Contestant, Mode, Seats
from .eventfd import Eventfd
from .graph_call import GraphCall
from .machine import describe, lines
from .measure import Cell, Measurement, rounds_of, visit
from .pipe import MultiprocessingPipe
from .pyzmq_pair import PyzmqPair
from .report import Results, document, show

# The graph comes first: its planner sees this process before it is pinned.
_CONTESTANTS: tuple[Callable[[Seats, Sequence[int]], Contestant], ...] = (
    GraphCall,
    BareLane,
    PyzmqPair,
    MultiprocessingPipe,
    Eventfd,
)
_UNITS = {"": 1, "b": 1, "kib": 1 << 10, "mib": 1 << 20}
_LARGEST_NBYTES = 64 << 20
_QUICK_ROUNDS, _QUICK_TRIPS = 2, 20
# So that a visit moves at most this many bytes, and takes some 10 ms where each trip has to wake somebody.
_VISIT_NBYTES = 48 << 20
_LEAST_TRIPS = 10
_MOST_TRIPS = {Mode.HOT: 300, Mode.PARKED: 100}


def sizes_of(text: str) -> tuple[int, ...]:
    """64,64KiB,1MiB as numbers of bytes, each once. Raises BadParameter."""
    return tuple(dict.fromkeys(_nbytes(each) for each in text.split(",")))


def _nbytes(text: str) -> int:
    found = re.fullmatch(r"(\d+) ?([a-z]*)", text.strip().lower())
    if found is None or found[2] not in _UNITS or not 0 < int(found[1]) * _UNITS[found[2]] <= _LARGEST_NBYTES:
        raise click.BadParameter(f"{text!r} is no size from 1 to 64MiB, such as 64, 64KiB or 1MiB")
    return int(found[1]) * _UNITS[found[2]]


@click.command()
@click.option(
    "--sizes",
    default="64,64KiB,1MiB",
    show_default=True,
    callback=lambda _ctx, _option, text: sizes_of(text),
    help="Payloads, comma between.",
)
@click.option("--rounds", type=click.IntRange(min=1), default=15, show_default=True, help="Visits to each contestant.")
@click.option("--seed", default=1, show_default=True, help="Of the order of visits.")
@click.option("--quick", is_flag=True, help=f"{_QUICK_ROUNDS} rounds of {_QUICK_TRIPS} trips: whether it works.")
@format_option
def command(sizes: tuple[int, ...], rounds: int, seed: int, quick: bool, form: str) -> None:
    """Round trips between two processes: client.call and the bare lane beside pyzmq, multiprocessing and eventfd.

    The payload goes one way and a checksum of it comes back. "hot": trips follow each other. "parked": each trip finds
    the answering process asleep. client.call is everything on: supervisor, worker, message, lease, deadline, counters.
    """
    rounds = _QUICK_ROUNDS if quick else rounds
    seats = Seats.choose()
    machine = describe(seats)
    with ExitStack() as stack:
        contestants = [stack.enter_context(each(seats, sizes)) for each in _CONTESTANTS]
        stack.enter_context(_pinned(seats.caller))
        results = _contest(contestants, sizes, rounds, seed, quick=quick)
    if form == "json":
        print_json(document(results, machine, {"rounds": rounds, "seed": seed}))
    else:
        show(results, contestants, lines(machine))


def _contest(
    contestants: Sequence[Contestant], sizes: Sequence[int], rounds: int, seed: int, *, quick: bool
) -> Results:
    cells = [
        Cell(size, mode, each.name) for size in sizes for mode in Mode for each in contestants if mode in each.modes
    ]
    results = {cell: Measurement() for cell in cells}
    by_name = {each.name: each for each in contestants}
    for number, order in enumerate(rounds_of(cells, rounds, seed), 1):
        _say_progress(number, rounds)
        for cell in order:
            trips = _QUICK_TRIPS if quick else _trips(cell)
            visit(by_name[cell.contestant], cell.mode, cell.nbytes, trips, results[cell])
    return results


def _trips(cell: Cell) -> int:
    return max(_LEAST_TRIPS, min(_MOST_TRIPS[cell.mode], _VISIT_NBYTES // cell.nbytes))


def _say_progress(number: int, rounds: int) -> None:
    if sys.stderr.isatty():
        click.echo(f"\rround {number} of {rounds}" + "\n" * (number == rounds), nl=False, err=True)


@contextmanager
def _pinned(cpu: int) -> Iterator[None]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
