"""Round trips that find the other process asleep in the kernel."""

from __future__ import annotations

from contextlib import ExitStack

from ..harness.contestant import Seats
from ..harness.measure import Cell, cells_of
from ..harness.peers import Entry, enter
from ..harness.report import Bar, Report, size_cases
from ..harness.settings import Settings, command_of, pinned
from ..harness.trips import visit

_WAYS: tuple[Entry, ...] = (
    ("graph", "GraphCall"),
    ("eventfd", "Eventfd"),
    ("bell", "BellAlone"),
    ("lanes", "BareLane"),
    ("lanes", "MessageLane"),
    ("pipe", "MultiprocessingPipe"),
    ("sockets", "PyzmqPair"),
)
_SIZES = (64,)
_TRIPS, _QUICK_TRIPS = 150, 10


def measure_parked(settings: Settings) -> Report:
    """Round trips that find the other process asleep: what waking costs, beside a bare eventfd each way.

    "bell alone" parks and rings around a word of shared memory, without a lane. client.call is a parked actor in its
    worker, with everything on.
    """
    seats = Seats.choose()
    with ExitStack() as stack:
        contestants, left_out = enter(_WAYS, stack, seats, _SIZES)
        stack.enter_context(pinned(seats.caller))

        def visit_cell(cell: Cell) -> tuple[list[float], int]:
            trips = settings.few(_TRIPS, _QUICK_TRIPS)
            return visit(contestants[cell.contestant], int(cell.case.x), trips, spinning=False)

        cells = cells_of(size_cases(_SIZES), list(contestants))
        results = settings.measure(cells, visit_cell)
    titles = {name: each.title for name, each in contestants.items()}
    report = Report("parked", "a round trip", results, titles, ("eventfd", "bell"), left_out=left_out)
    (case,) = size_cases(_SIZES)
    for name, what, most in (("bell", "the bell alone", 1.5), ("client_call", "inside a worker", 2.0)):
        ratio = report.ratio(case, name, "eventfd")
        if ratio is not None:
            report.bars.append(Bar(f"{what} / bare eventfd", ratio, most=most))
    return report


command = command_of(measure_parked, rounds=15)
