"""How many small records, or messages, a second go from one process to another."""

from __future__ import annotations

from contextlib import ExitStack
from time import perf_counter_ns

from ..harness.contestant import BenchError, Seats, Stream
from ..harness.measure import Case, Cell, Results, cells_of
from ..harness.peers import Entry, enter
from ..harness.report import Bar, Report
from ..harness.settings import Settings, command_of, pinned

_WAYS: tuple[Entry, ...] = (
    ("streams", "ActorStream"),
    ("streams", "LaneStream"),
    ("iox", "Iceoryx2Stream"),
    ("pipe", "PipeStream"),
    ("queues", "MultiprocessingQueue"),
    ("sockets", "PyzmqPush"),
    ("zenoh_peers", "ZenohStream"),
)
_CASE = Case("numbers of 8 B", 8)
# So that each takes some tenths of a second.
_COUNTS = {"bare_lane": 300_000, "actors": 20_480, "iceoryx2": 20_000}
_COUNT, _QUICK_COUNT = 20_000, 2_000
_LEAST_RECORDS, _LEAST_MESSAGES = 1e6, 1e5


def measure_one_to_one(settings: Settings) -> Report:
    """Small records a second between two bare lanes, messages a second between two actors, and other people's ways.

    Numbers go one way as fast as they can; the clock stops when the other end has said their sum. An actor emits them
    along an edge to another actor's plain handler.
    """
    seats = Seats.choose()
    with ExitStack() as stack:
        streams, left_out = enter(_WAYS, stack, seats)
        stack.enter_context(pinned(seats.caller))
        results = _contest(streams, settings)
    titles = {name: each.title for name, each in streams.items()}
    rates = {cell.contestant: 1e6 / each.median for cell, each in results.items()}
    bars = [
        Bar("records a second between two bare lanes", rates["bare_lane"], least=_LEAST_RECORDS),
        Bar("messages a second between two actors", rates["actors"], least=_LEAST_MESSAGES),
    ]
    baselines = ("actors", "bare_lane")
    return Report("one_to_one", "a number", results, titles, baselines, rates=True, left_out=left_out, bars=bars)


def _contest(streams: dict[str, Stream], settings: Settings) -> Results:
    def visit(cell: Cell) -> tuple[list[float], int]:
        count = settings.few(_COUNTS.get(cell.contestant, _COUNT), _QUICK_COUNT)
        carried(streams[cell.contestant], count // 10)  # warm
        return [carried(streams[cell.contestant], count)], count

    return settings.measure(cells_of([_CASE], list(streams)), visit)


def carried(stream: Stream, count: int) -> float:
    """Microseconds a number, of so many. Raises BenchError if the other end got another sum."""
    began = perf_counter_ns()
    total = stream.carry(count)
    took = perf_counter_ns() - began
    if total != count * (count + 1) // 2:
        raise BenchError(f"{stream.title}: the numbers from 1 to {count} arrived with the sum {total}")
    return took / 1e3 / count


command = command_of(measure_one_to_one, rounds=9)
