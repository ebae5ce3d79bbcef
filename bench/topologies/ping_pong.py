"""Round trips between two processes that are awake: our ways, what each feature costs, and other people's ways."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from itertools import pairwise

import click

from ..harness.contestant import PingPong, Seats
from ..harness.measure import Cell, Results, cells_of
from ..harness.peers import Entry, enter
from ..harness.report import Bar, Report, flatness, size_cases
from ..harness.settings import Settings, command_of, pinned
from ..harness.trips import trips_for, visit

# A graph comes first: its planner sees this process before it is pinned.
_WAYS: tuple[Entry, ...] = (
    ("graph", "GraphCall"),
    ("lanes", "BareLane"),
    ("lanes", "MessageLane"),
    ("lanes", "Loaned"),
    ("iox", "Iceoryx2"),
    ("pipe", "MultiprocessingPipe"),
    ("queues", "MultiprocessingQueue"),
    ("sockets", "PyzmqPair"),
    ("zenoh_peers", "Zenoh"),
    ("ray_actor", "RayActor"),
)
_STEPS: tuple[Entry, ...] = tuple(
    ("lanes", each) for each in ("RecordLane", "LendingLane", "HeadedLane", "TimedLane", "NotedLane", "MessageLane")
)
_TRIPS, _QUICK_TRIPS = 300, 10
# Of the round trip of iceoryx2, by size.
_MOST_OF_ICEORYX2 = {64: 0.5, 64 << 10: 0.5, 1 << 20: 1.0, 16 << 20: 1.0}
_SMALL, _LARGE = 4 << 10, 16 << 20


def measure_ping_pong(settings: Settings, *, features: bool = False) -> Report:
    """Round trips between two processes that are awake, beside iceoryx2, multiprocessing, pyzmq, zenoh and Ray.

    The payload is copied in and goes one way; a checksum of it comes back. "message" has everything that a message of
    an actor has: header, lease, deadline, trace, in-flight row, commit. "loaned" is the same with the tensor written in
    place beforehand. client.call adds supervisor, worker and client. --features shows instead what each of a message's
    features adds.
    """
    seats = Seats.choose()
    with ExitStack() as stack:
        contestants, left_out = enter(_STEPS if features else _WAYS, stack, seats, settings.sizes)
        stack.enter_context(pinned(seats.caller))
        results = _contest(contestants, settings)
    titles = {name: each.title for name, each in contestants.items()}
    if features:
        return Report(
            "ping_pong", "a round trip", results, titles, ("record", "bare_lane"), notes=_costs(results, titles)
        )
    report = Report("ping_pong", "a round trip", results, titles, ("message", "bare_lane"), left_out=left_out)
    report.bars = _bars(report, settings.sizes)
    return report


def _contest(contestants: dict[str, PingPong], settings: Settings) -> Results:
    def visit_cell(cell: Cell) -> tuple[list[float], int]:
        nbytes = int(cell.case.x)
        trips = settings.few(trips_for(nbytes, _TRIPS), _QUICK_TRIPS)
        return visit(contestants[cell.contestant], nbytes, trips, spinning=True)

    return settings.measure(cells_of(size_cases(settings.sizes), list(contestants)), visit_cell)


def _costs(results: Results, titles: dict[str, str]) -> list[str]:
    """What each step adds to the one before, in the smallest case whose payload needs a block in every step."""
    cases = list(dict.fromkeys(cell.case for cell in results))
    first = next((each for each in cases if each.x >= _SMALL), cases[0])
    steps = [(titles[cell.contestant], each.median) for cell, each in results.items() if cell.case == first]
    added = (f"{title} {now - before:+.1f} µs" for (_, before), (title, now) in pairwise(steps))
    return [f"at {first.text}: {steps[0][0]} {steps[0][1]:.1f} µs, " + ", ".join(added)]


def _bars(report: Report, sizes: Sequence[int]) -> list[Bar]:
    bars = []
    for case in size_cases(sizes):
        ratio = report.ratio(case, "message", "iceoryx2")
        if ratio is not None and case.x in _MOST_OF_ICEORYX2:
            bars.append(Bar(f"message / iceoryx2 at {case.text}", ratio, most=_MOST_OF_ICEORYX2[int(case.x)]))
    flat = flatness(report.results, "loaned", _SMALL, _LARGE)
    return bars if flat is None else [*bars, Bar("message loaned beforehand, 16 MiB / 4 KiB", flat, most=1.5)]


command = command_of(
    measure_ping_pong,
    rounds=15,
    sized=True,
    extra=[click.Option(["--features"], is_flag=True, help="What each feature of a message costs.")],
)
