"""What a graph costs that has nothing to do."""

from __future__ import annotations

import os
import time

import click
import numpy as np

from ...runtime.launch.graph import Graph
from ..harness.measure import Results
from ..harness.process import Clock
from ..harness.report import Bar, Report
from ..harness.settings import Settings, command_of
from ..ways.graph import Echo, Graphed

_ACTORS = 20
_MOST = 0.01
_SHOWN = 4
_QUICK_IDLE_S = 0.5
# All processes have settled when none of them has run for this long.
_SETTLED_S, _SETTLED_NS = 0.25, 5_000_000


def measure_idle(settings: Settings, *, idle_s: float = 10.0) -> Report:
    """CPU time of a graph of 20 idle actors, all its processes together, as a share of one core.

    Each actor has answered one call; then nothing happens.
    """
    graph = Graph(f"bench-idle-{os.getpid()}")
    for number in range(_ACTORS):
        graph.expose(graph.add(Echo, name=f"echo{number}").echo)
    idle_s = _QUICK_IDLE_S if settings.quick else idle_s
    with Graphed(graph) as running:
        for number in range(_ACTORS):
            running.client.call(f"echo{number}.echo", np.zeros(2, np.uint8))
        pids = {each["name"]: each["pid"] for each in running.running.status()["workers"]}
        pids["supervisor"] = running.running.pid
        _settle(pids)
        shares = _shares(pids, idle_s)
    results: Results = {}
    report = Report("idle", "", results, {})
    report.figures = {"idle_s": idle_s, "actors": _ACTORS, "shares": shares}
    report.bars = [
        Bar(f"CPU time of {_ACTORS} idle actors, of one core", sum(shares.values()), most=_MOST, percent=True)
    ]
    most = sorted(shares.items(), key=lambda each: -each[1])[:_SHOWN]
    named = ", ".join(f"{name} {share:.3%}" for name, share in most)
    report.notes = [f"idle: {_ACTORS} actors in {len(pids)} processes, for {idle_s:g} s; most by {named}"]
    return report


def _settle(pids: dict[str, int]) -> None:
    """Returns when all have got to rest: spinning windows end, starts are over."""
    while True:
        before = _ran_ns(pids)
        time.sleep(_SETTLED_S)
        if sum(_ran_ns(pids).values()) - sum(before.values()) < _SETTLED_NS:
            return


def _shares(pids: dict[str, int], idle_s: float) -> dict[str, float]:
    before, began = _ran_ns(pids), time.monotonic_ns()
    time.sleep(idle_s)
    now, took = _ran_ns(pids), time.monotonic_ns() - began
    return {name: (now[name] - before[name]) / took for name in pids}


def _ran_ns(pids: dict[str, int]) -> dict[str, int]:
    return {name: Clock.of(pid).ran_ns for name, pid in pids.items()}


command = command_of(
    measure_idle,
    rounds=1,
    visits=False,
    extra=[
        click.Option(
            ["--idle-s"], type=click.FloatRange(min=0.1), default=10.0, show_default=True, help="How long to look."
        )
    ],
)
