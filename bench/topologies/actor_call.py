"""Calls of an actor that answers with what it got, beside other actor runtimes."""

from __future__ import annotations

from contextlib import ExitStack

from ..harness.contestant import Seats
from ..harness.measure import Cell, cells_of
from ..harness.peers import Entry, enter
from ..harness.report import Bar, Report, size_cases
from ..harness.settings import Settings, command_of, pinned
from ..harness.trips import trips_for, visit

# A graph comes first: its planner sees this process before it is pinned.
_WAYS: tuple[Entry, ...] = (
    ("graph_echo", "GraphEcho"),
    ("ray_actor", "RayEcho"),
    ("xoscar_actor", "XoscarEcho"),
)
_TRIPS, _QUICK_TRIPS = 300, 10
# Of each peer's call, by size.
_MOST_OF_A_PEER = {64: 1 / 3, 1 << 20: 1 / 5}


def measure_actor_call(settings: Settings) -> Report:
    """Calls of an actor in another process that answers with what it got, beside those of Ray and of xoscar.

    The tensor goes there and comes back, each runtime in the way that its users write: client.call, with supervisor,
    worker and lease; ray.get(actor.echo.remote(...)); await actor.echo(...).
    """
    seats = Seats.choose()
    with ExitStack() as stack:
        contestants, left_out = enter(_WAYS, stack, seats)
        stack.enter_context(pinned(seats.caller))

        def visit_cell(cell: Cell) -> tuple[list[float], int]:
            nbytes = int(cell.case.x)
            trips = settings.few(trips_for(nbytes, _TRIPS), _QUICK_TRIPS)
            return visit(contestants[cell.contestant], nbytes, trips, spinning=True)

        cases = size_cases(settings.sizes)
        results = settings.measure(cells_of(cases, list(contestants)), visit_cell)
    titles = {name: each.title for name, each in contestants.items()}
    peers = [name for name in contestants if name != "client_call"]
    report = Report("actor_call", "a call", results, titles, peers, left_out=left_out)
    for case in cases:
        for peer in peers:
            ratio = report.ratio(case, "client_call", peer)
            if ratio is not None and case.x in _MOST_OF_A_PEER:
                what = f"client.call / {titles[peer]} at {case.text}"
                report.bars.append(Bar(what, ratio, most=_MOST_OF_A_PEER[int(case.x)]))
    return report


command = command_of(measure_actor_call, rounds=15, sized=True)
