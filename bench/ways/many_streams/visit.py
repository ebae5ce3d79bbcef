"""One visit to a way: started, its streams begun, so many steps measured, ended."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ....runtime.message.capacities import STREAM_WINDOW
from ...harness.contestant import BenchError
from ...harness.load import Load
from ...harness.process import Clock, Memory
from .sink import SinkProcess
from .way import Way

_WARM_UP_S = 1.0
_LEAST_STEPS = 2
# Of the one stream that is not read: not among those whose items are timed.
_PAUSED = 1
# Steps a second, of those that fill what a stream that is not read may be ahead.
_FILLS_AT = 20.0


@dataclass(frozen=True)
class Figures:
    """What a visit measured. CPU time is by process and in nanoseconds, that of the writes is the reader's."""

    items: int
    took_ns: int
    cpu_ns: dict[str, int]
    wrote_ns: int
    latencies_us: list[float]
    memory_nbytes: int
    streams: int
    errors: int

    def cpu_us(self, *processes: str, writes: bool = True) -> float:
        """For each item; of all processes where none is named."""
        ran_ns = sum(self.cpu_ns[each] for each in processes or self.cpu_ns)
        return (ran_ns - (0 if writes else self.wrote_ns)) / self.items / 1e3


@contextmanager
def opened(way: type[Way], load: Load) -> Iterator[tuple[Way, int]]:
    """A way with all its streams open, and the memory that they began with. What came is checked at the end."""
    with SinkProcess() as sink, way(load) as running:
        running.reader("connect", sink.path, load.streams)
        memory = _memory(running)
        running.reader("begin")
        running.source("wait_open", load.streams)
        yield running, memory
        _cancel(running)
        items, wrong_nbytes = sink.came()
        if wrong_nbytes or items != running.reader("wrote")[0]:
            written = running.reader("wrote")[0]
            raise BenchError(f"{way.title}: {items} of {written} items came, and {wrong_nbytes} bytes by wrong sockets")


def visit_steps(way: type[Way], load: Load, seconds: float, *, paused: bool = False, fills: bool = False) -> Figures:
    """Measures as many steps as make so many seconds. `paused`: one stream is not read, and its items do not count.
    `fills`: so many were made before, fast, that no more of them would be under way.
    """
    with opened(way, load) as (running, memory_before):
        if paused:
            running.reader("pause", _PAUSED)
        if fills:
            _made(running, load, STREAM_WINDOW + _LEAST_STEPS, paused=paused, pace=_FILLS_AT)
        _made(running, load, _steps_in(min(_WARM_UP_S, seconds), load), paused=paused)
        memory = _memory(running) - memory_before
        running.reader("latencies_us")
        before = _clocks(running)
        wrote_before = running.reader("wrote")[1]
        items, took_ns = _made(running, load, _steps_in(seconds, load), paused=paused)
        after = _clocks(running)
        return Figures(
            items=items,
            took_ns=took_ns,
            cpu_ns={name: (after[name] - before[name]).ran_ns for name in before},
            wrote_ns=running.reader("wrote")[1] - wrote_before,
            latencies_us=running.reader("latencies_us"),
            memory_nbytes=memory,
            streams=load.streams,
            errors=running.reader("errors"),
        )


def visit_cancel(way: type[Way], load: Load) -> tuple[float, float, int]:
    """Cancels all streams at once: microseconds until the source had none any more, and until as many had begun anew;
    and how many items came.
    """
    with opened(way, load) as (running, _):
        items, _ = _made(running, load, _LEAST_STEPS)
        began_ns, quiet_ns = _cancel(running)
        running.reader("begin")
        anew_ns = running.source("wait_open", load.streams)
        return (quiet_ns - began_ns) / 1e3, (anew_ns - began_ns) / 1e3, items


def _cancel(running: Way) -> tuple[int, int]:
    """When it began, and when the source had no open stream any more."""
    running.reader("cancel")
    quiet_ns = running.source("wait_open", 0)
    return running.reader("cancelled"), quiet_ns


def _made(running: Way, load: Load, steps: int, *, paused: bool = False, pace: float | None = None) -> tuple[int, int]:
    """Makes steps, and waits until their items are written: how many, and in how many nanoseconds: at least as many as
    those steps shall take.
    """
    before = running.reader("wrote")[0]
    made = running.source("steps", steps, pace)
    missed = sum(count for number, count in made["missed"] if not (paused and number == _PAUSED))
    items = (load.streams - paused) * steps - missed
    came_ns = running.reader("until", before + items)
    return items, max(came_ns, made["ended_ns"]) - made["began_ns"]


def _steps_in(seconds: float, load: Load) -> int:
    return max(_LEAST_STEPS, math.ceil(seconds * load.pace))


def _clocks(running: Way) -> dict[str, Clock]:
    return {name: Clock.of(pid) for name, pid in running.pids().items()}


def _memory(running: Way) -> int:
    """Of all processes, shared memory counted once."""
    found = [Memory.of(each) for each in running.pids().values()]
    return sum(each.pss - each.pss_files for each in found)
