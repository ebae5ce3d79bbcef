"""Many slow streams from one actor to another, which writes their items to sockets, beside other ways to carry them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..harness.load import Load, load_options, loads_of
from ..harness.measure import Case, Cell, cells_of
from ..harness.medians import Medians, percentile
from ..harness.peers import Entry, importable
from ..harness.report import Report
from ..harness.settings import Settings, command_of
from ..ways.many_streams.figures import COLUMNS, TITLE
from ..ways.many_streams.visit import Figures, visit_cancel, visit_steps
from ..ways.many_streams.way import Way

_LOADS_TEXT, _SECONDS = "100x5,1000x5,10000x4", 5.0
_QUICK_LOAD, _QUICK_SECONDS = Load(20, 10.0), 0.5
_EVENT_LOAD = Load(1000, 5.0)
_WAYS: tuple[Entry, ...] = (
    ("many_streams.groups", "Groups"),
    ("many_streams.generators", "Generators"),
    ("many_streams.queues", "Queues"),
    ("many_streams.zeromq", "ZeroMq"),
    ("many_streams.grpc_streams", "Grpc"),
)

# Measures a way once, in one case: samples, and how many items were checked.
_Visit = Callable[[type[Way]], tuple[list[float], int]]


@dataclass(frozen=True)
class _Row:
    """A case, and whom it is measured with."""

    case: Case
    ways: Sequence[type[Way]]
    visit: _Visit


def measure_streams(
    settings: Settings, *, streams: tuple[Load, ...] | None = None, seconds: float = _SECONDS
) -> Report:
    """What an item costs on its way from an actor with very many slow streams to another one, which writes each to a
    socket of its stream: CPU time of all processes, as the kernel counts it.

    Then what one stream that nobody reads does to the latency of the others, and how long it takes to cancel all of
    1,000 at once.
    """
    loads = streams or ((_QUICK_LOAD,) if settings.quick else loads_of(_LOADS_TEXT))
    seconds = min(seconds, _QUICK_SECONDS) if settings.quick else seconds
    ways, left_out = importable(_WAYS)
    shown = Medians(COLUMNS, [(load, way.name) for load in loads for way in ways])
    event = _QUICK_LOAD if settings.quick else _EVENT_LOAD
    rows = [
        *(_items_row(load, ways, seconds, shown) for load in loads),
        *(_latency_row(event, ways, seconds, paused=each) for each in (False, True)),
        *(_cancel_row(event, ways, anew=each) for each in (False, True)),
    ]
    visits = {(row.case, way.name): (row.visit, way) for row in rows for way in row.ways}

    def visit(cell: Cell) -> tuple[list[float], int]:
        measure, way = visits[cell.case, cell.contestant]
        return measure(way)

    cells = [cell for row in rows for cell in cells_of([row.case], [each.name for each in row.ways])]
    results = settings.measure(cells, visit)
    report = Report("streams", "as each case says", results, {each.name: each.title for each in ways})
    report.baselines = [ways[0].name]
    report.left_out = left_out
    report.figures = {"seconds": seconds, "items": shown.plain()}
    report.tables = [shown.table(TITLE)]
    return report


def _items_row(load: Load, ways: Sequence[type[Way]], seconds: float, shown: Medians[Figures]) -> _Row:
    def visit(way: type[Way]) -> tuple[list[float], int]:
        figures = visit_steps(way, load, seconds)
        shown.add(load, way.name, figures)
        return [figures.cpu_us()], figures.items

    return _Row(Case(f"{load.text}: CPU for an item", load.streams), ways, visit)


def _latency_row(load: Load, ways: Sequence[type[Way]], seconds: float, *, paused: bool) -> _Row:
    """With one stream that nobody reads, which is as far behind as it can be, and without: p99 of each visit."""

    def visit(way: type[Way]) -> tuple[list[float], int]:
        figures = visit_steps(way, load, seconds, paused=paused, fills=True)
        p99_us = percentile(figures.latencies_us, 0.99)
        return [] if p99_us is None else [p99_us], figures.items

    what = "one never read: p99 latency of the others" if paused else "all read: p99 latency"
    return _Row(Case(f"{load.text}, {what}", paused), [each for each in ways if each.pauses], visit)


def _cancel_row(load: Load, ways: Sequence[type[Way]], *, anew: bool) -> _Row:
    def visit(way: type[Way]) -> tuple[list[float], int]:
        quiet_us, anew_us, items = visit_cancel(way, load)
        return [anew_us if anew else quiet_us], items

    what = "as many have begun anew" if anew else "the source is quiet"
    return _Row(Case(f"{load.streams:,} cancelled at once: until {what}", anew), ways, visit)


command = command_of(
    measure_streams,
    rounds=5,
    extra=load_options(_LOADS_TEXT, _SECONDS),
)
