"""Round trips through a chain of actors that pass a payload on without a copy."""

from __future__ import annotations

from contextlib import ExitStack

from ..harness.contestant import Seats
from ..harness.measure import Cell, cells_of
from ..harness.report import Bar, Report, flatness, size_cases
from ..harness.settings import Settings, command_of
from ..harness.trips import trips_for, visit
from ..ways.chain import Copied, Forwarded

_TRIPS, _QUICK_TRIPS = 100, 5
_SMALL, _LARGE = 4 << 10, 16 << 20
_MOST = 1.5


def measure_forward(settings: Settings) -> Report:
    """Round trips through a chain of three actors in three workers, called by a client.

    The first has got the payload before the clock runs; it sends it to the second, which passes it on to the third,
    whose checksum comes back. Beside it the same chain, whose second actor sends a copy.
    """
    seats = Seats.choose()
    with ExitStack() as stack:
        chains = {each.name: stack.enter_context(each(seats, settings.sizes)) for each in (Forwarded, Copied)}

        def visit_cell(cell: Cell) -> tuple[list[float], int]:
            nbytes = int(cell.case.x)
            trips = settings.few(trips_for(nbytes, _TRIPS), _QUICK_TRIPS)
            return visit(chains[cell.contestant], nbytes, trips, spinning=True)

        cells = cells_of(size_cases(settings.sizes), list(chains))
        results = settings.measure(cells, visit_cell)
    titles = {name: each.title for name, each in chains.items()}
    report = Report("forward", "a round trip through three actors", results, titles, ("forwarded",))
    flat = flatness(results, "forwarded", _SMALL, _LARGE)
    report.bars = [] if flat is None else [Bar("forwarded, 16 MiB / 4 KiB", flat, most=_MOST)]
    return report


command = command_of(measure_forward, rounds=9, sized=True)
