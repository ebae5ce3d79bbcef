"""Calls of an actor by a program of asyncio, several in flight: what they take of both processes' CPU time."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from time import perf_counter_ns, process_time_ns
from typing import Protocol

from ..harness.contestant import Contestant, Seats
from ..harness.measure import Case, Cell, cells_of
from ..harness.peers import Entry, enter
from ..harness.process import Clock
from ..harness.report import Report
from ..harness.settings import Settings, command_of, pinned

_WAYS: tuple[Entry, ...] = (
    ("callers", "Awaited"),
    ("callers", "Threads"),
    ("ray_actor", "RayAwaited"),
    ("xoscar_actor", "XoscarEcho"),
)
_IN_FLIGHT = (1, 8, 64)
_CALLS, _QUICK_CALLS = 2000, 100


class Calls(Contestant, Protocol):
    """Calls an actor, whose process is `pid`."""

    @property
    def pid(self) -> int: ...

    def carry(self, count: int, in_flight: int) -> None:
        """So many calls, each answer checked."""


# What is read before and after a visit, by what it is a figure of.
_FIGURES: dict[str, Callable[[Calls], int]] = {
    "time": lambda _: perf_counter_ns(),
    "CPU of the client": lambda _: process_time_ns(),
    "CPU of the worker": lambda contestant: Clock.of(contestant.pid).ran_ns,
}


def measure_async_calls(settings: Settings) -> Report:
    """An actor that echoes 2 KiB, called by tasks of one asyncio loop: 1, 8 and 64 in flight.

    Three figures, each the mean of a visit: time a call, and the CPU time that a call takes of the calling process and
    of the actor's. Beside AsyncClient stand Client with as many threads, Ray and xoscar.
    """
    seats = Seats.choose()
    with ExitStack() as stack:
        contestants, left_out = enter(_WAYS, stack, seats)
        stack.enter_context(pinned(seats.caller))
        cases = {
            Case(f"{number} in flight: {figure}", number): (number, read)
            for number in _IN_FLIGHT
            for figure, read in _FIGURES.items()
        }

        def visit_cell(cell: Cell) -> tuple[list[float], int]:
            count, contestant = settings.few(_CALLS, _QUICK_CALLS), contestants[cell.contestant]
            number, read = cases[cell.case]
            contestant.carry(count // 10, number)  # warm
            before = read(contestant)
            contestant.carry(count, number)
            return [(read(contestant) - before) / 1e3 / count], count

        results = settings.measure(cells_of(list(cases), list(contestants)), visit_cell)
    titles = {name: each.title for name, each in contestants.items()}
    peers = [name for name in contestants if name != "async_client"]
    return Report("async_calls", "a call", results, titles, peers, rates=True, left_out=left_out)


command = command_of(measure_async_calls, rounds=9)
