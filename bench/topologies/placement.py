"""What it brings to put actors on cores of their own, to pin them, and to size thread pools by the plan."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ...runtime.host.topology import Topology
from ..harness.contestant import BenchError
from ..harness.measure import Case, Cell, Results, cells_of
from ..harness.report import Report
from ..harness.settings import Settings, command_of
from ..ways.pools import ONE_ACTOR, TWO_ACTORS, write_model
from ..ways.stages import STAGES, Crowd

_IN_FLIGHT = 8
_CALLS, _QUICK_CALLS = 400, 40
_RUNS, _QUICK_RUNS = 100, 10


def measure_placement(settings: Settings) -> Report:
    """Two actors on two cores, beside the same two on one core, not pinned, and in one worker; two models on two cores
    with the plan's thread pools, beside ONNX Runtime's own; one model on two cores, its pool pinned or not.

    Throughput is the time of a whole visit by its calls, latency that of each call, its waiting included.
    """
    with ExitStack() as stack:
        stack.enter_context(_on_two_cores())
        path = Path(stack.enter_context(TemporaryDirectory())) / "mlp.onnx"
        write_model(path)
        results, titles = Results(), dict[str, str]()
        calls, runs = settings.few(_CALLS, _QUICK_CALLS), settings.few(_RUNS, _QUICK_RUNS)
        for what, kinds, count, in_flight in (
            ("two actors", STAGES, calls, (1, _IN_FLIGHT)),
            ("two models", [lambda kind=kind: kind(path) for kind in TWO_ACTORS], runs, (4,)),
            ("one model, two cores", [lambda kind=kind: kind(path) for kind in ONE_ACTOR], runs, (1,)),
        ):
            part = _contest(what, kinds, count, in_flight, settings, titles)
            results.update(part)
    baselines = ("two_cores", "planned_pools", "pinned_pool")
    report = Report("placement", "a call", results, titles, baselines, rates=True)
    report.figures = {"calls": calls, "runs": runs, "in_flight": _IN_FLIGHT}
    return report


@contextmanager
def _on_two_cores() -> Iterator[None]:
    """All that is started from here on sees two physical cores. Raises BenchError where there is one."""
    before, cores = os.sched_getaffinity(0), Topology.read().cores
    if len(cores) < 2:
        raise BenchError("this bench compares two cores with one, and this machine has one")
    os.sched_setaffinity(0, {cpu for core in cores[:2] for cpu in core.cpus})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _contest(
    what: str,
    kinds: Sequence[Callable[[], Crowd]],
    count: int,
    in_flight: Sequence[int],
    settings: Settings,
    titles: dict[str, str],
) -> Results:
    """One part, whose contestants live at the same time."""
    cases = {
        Case(f"{what}, {number} in flight: {figure}", number): (number, figure)
        for number in in_flight
        for figure in ("throughput", "latency")
    }
    with ExitStack() as stack:
        crowds: dict[str, Any] = {}
        for kind in kinds:
            crowd = stack.enter_context(kind())
            crowds[crowd.name] = crowd
            titles[crowd.name] = crowd.title
            crowd.carry(count, max(in_flight))  # warm

        def visit(cell: Cell) -> tuple[list[float], int]:
            number, figure = cases[cell.case]
            whole, each = crowds[cell.contestant].carry(count, number)
            return ([whole / count] if figure == "throughput" else each), count

        return settings.measure(cells_of(list(cases), list(crowds)), visit)


command = command_of(measure_placement, rounds=15)
