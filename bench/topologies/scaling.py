"""Whether a message costs the same as there are more of them, and more edges."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from time import perf_counter_ns

from ..harness.contestant import BenchError, Seats, Stream
from ..harness.measure import Case, Cell, Results
from ..harness.report import Bar, Report, flatness
from ..harness.settings import Settings, command_of, pinned
from ..ways.edges import Funnel
from ..ways.streams import ActorStream, LaneStream
from .one_to_one import carried

_RECORDS = tuple(10**power for power in range(1, 8))
_MESSAGES = tuple(10**power for power in range(1, 6))
_QUICK = (10, 100, 1_000, 10_000)
_WIDTHS = (1, 4, 16, 64)
# Many enough that each of 64 edges has two bursts.
_THROUGH_EDGES, _QUICK_THROUGH_EDGES = 32_768, 4_096
# A visit with few numbers is repeated: one of ten takes no longer than the clock needs.
_LEAST_NUMBERS = 1_000
# From here on the cost of the answer, once a visit, does not show.
_FLAT_FROM = 10_000
_MOST = 1.5


def measure_scaling(settings: Settings) -> Report:
    """What a message costs as they become more, and as more edges lead into one worker; flat is what it should be.

    Numbers from 10 to 10 million through one bare lane, to 100,000 from actor to actor, and through 1 to 64 edges into
    one worker. Each visit waits for an answer once, which dominates where numbers are few: flatness is judged from
    10,000 on.
    """
    seats = Seats.choose()
    records, messages = (_QUICK, _QUICK) if settings.quick else (_RECORDS, _MESSAGES)
    with ExitStack() as stack:
        funnel = stack.enter_context(Funnel(seats, _WIDTHS))
        streams: dict[str, Stream] = {
            "actors": stack.enter_context(ActorStream(seats)),
            "bare_lane": stack.enter_context(LaneStream(seats)),
        }
        stack.enter_context(pinned(seats.caller))
        through = settings.few(_THROUGH_EDGES, _QUICK_THROUGH_EDGES)

        def visit(cell: Cell) -> tuple[list[float], int]:
            if cell.contestant == "edges":
                return [_through(funnel, _WIDTHS.index(int(cell.case.x)), through)], through
            count = int(cell.case.x)
            repeats = max(1, _LEAST_NUMBERS // count)
            return [carried(streams[cell.contestant], count) for _ in range(repeats)], count * repeats

        results = settings.measure(_cells(records, messages), visit)
    titles = {"bare_lane": "bare lane", "actors": "actor to actor", "edges": "actors, many edges"}
    report = Report("scaling", "a number", results, titles)
    report.bars = _bars(results, records, messages)
    return report


def _cells(records: Sequence[int], messages: Sequence[int]) -> list[Cell]:
    lanes = [Cell(Case(f"{each:,} numbers", each), "bare_lane") for each in records]
    actors = [Cell(Case(f"{each:,} numbers", each), "actors") for each in messages]
    edges = [Cell(Case(f"{each} edge{'s' * (each > 1)}", each), "edges") for each in _WIDTHS]
    return [*lanes, *actors, *edges]


def _through(funnel: Funnel, sink: int, count: int) -> float:
    began = perf_counter_ns()
    total = funnel.carry(sink, count)
    took = perf_counter_ns() - began
    if total != count * (count + 1) // 2:
        raise BenchError(f"numbers through {funnel.widths[sink]} edges arrived with the sum {total}")
    return took / 1e3 / count


def _bars(results: Results, records: Sequence[int], messages: Sequence[int]) -> list[Bar]:
    said = (
        ("bare_lane", _FLAT_FROM, records[-1], f"bare lane, {records[-1]:,} numbers / {_FLAT_FROM:,}"),
        ("actors", _FLAT_FROM, messages[-1], f"actor to actor, {messages[-1]:,} numbers / {_FLAT_FROM:,}"),
        ("edges", _WIDTHS[0], _WIDTHS[-1], f"into one worker, {_WIDTHS[-1]} edges / one"),
    )
    found = ((what, flatness(results, name, first, last)) for name, first, last, what in said)
    return [Bar(what, each, most=_MOST) for what, each in found if each is not None]


command = command_of(measure_scaling, rounds=5)
