"""Compares ways to run Python's garbage collector in a worker, interleaved: latency, pauses, memory.

    python tools/gc_pauses.py [--rounds 5] [--seconds 10] [--rate 400] [--objects 1000000] [--cycles 20] [--kept 10]

An actor builds a heap in `on_start`, as a cache does. Each call makes cycles that are garbage when it returns, and
keeps some that become garbage 2,000 calls later. Calls come at random moments (`--rate` a second on average; 0: one
after the other), and each is timed from the moment when it was due, so those that wait behind a pause count, too.
Runs of the handler and pauses are in CPU time of the worker's thread: what else the machine does is not in them.

Ways: `default` (Python's own thresholds), `disabled`, `frozen` (the heap is frozen once it is built; Python's
thresholds), `frozen-N` (the same with the first threshold at N), `slabwire` (what workers do). Each round visits all of
them in random order, each in a new worker. An actor that sets thresholds of its own is left alone by its worker, and
that is how the others are had. Each figure is the median of the rounds; the longest pauses are those of all.
"""

from __future__ import annotations

import argparse
import gc
import random
import time
from collections import deque
from collections.abc import Iterator
from statistics import median
from typing import Any, NamedTuple

from slabwire import Actor, Graph
from slabwire.runtime.host.process_usage import pss_nbytes

PYTHONS = (700, 10, 10)  # of 3.11 and 3.12; later versions have 2,000
WAYS = ("default", "disabled", "frozen", "frozen-2000", "frozen-5000", "slabwire")
WARM_UP = 200
REMEMBERED = 2000
# A sleep ends late; the rest of the time until a call is due is spun.
SPUN_S = 0.0005
SHARES = (0.5, 0.99, 0.999, 1.0)


class Node:
    """A cycle of its own."""

    def __init__(self) -> None:
        self.me = self


class Cache(Actor):
    """Holds a heap, and makes garbage."""

    def __init__(self, way: str, objects: int, cycles: int, kept: int) -> None:
        self.way, self.objects, self.cycles, self.kept = way, objects, cycles, kept
        self.recent: deque[list[Node]] = deque(maxlen=REMEMBERED)
        self.runs_ns: list[int] = []
        self.pauses_ns: dict[bool, list[int]] = {True: [], False: []}  # by whether a handler ran
        self.is_busy = False

    def on_start(self) -> None:
        self.heap = [[number] for number in range(self.objects)]
        if self.way.startswith("frozen"):
            gc.collect()
            gc.freeze()
            gc.collect()
            _, _, young = self.way.partition("-")
            gc.set_threshold(int(young) + 1 if young else PYTHONS[0], *PYTHONS[1:])  # +1: nobody else has these
        elif self.way != "slabwire":
            gc.set_threshold(*PYTHONS)
        if self.way == "disabled":
            gc.disable()

    def _heard(self, phase: str, _told: dict[str, int]) -> None:
        now = time.thread_time_ns()
        if phase == "start":
            self.began_ns = now
        else:
            self.pauses_ns[self.is_busy].append(now - self.began_ns)

    def watch(self) -> None:
        """The warm-up is over."""
        self.runs_ns.clear()
        gc.callbacks.append(self._heard)

    def seen(self) -> dict[str, list[int]]:
        """CPU time of each run and of each pause, in nanoseconds."""
        return {"runs": self.runs_ns, "in handlers": self.pauses_ns[True], "outside": self.pauses_ns[False]}

    def ask(self, number: int) -> int:
        self.is_busy, began = True, time.thread_time_ns()
        self._litter()
        self.runs_ns.append(time.thread_time_ns() - began)
        self.is_busy = False
        return number + 1

    def _litter(self) -> None:
        for _ in range(self.cycles):
            Node()
        self.recent.append([Node() for _ in range(self.kept)])


class Visit(NamedTuple):
    """What was seen in one worker."""

    calls_us: list[float]  # the shortest first, as the next
    runs_us: list[float]
    in_handlers_ms: list[float]
    outside_ms: list[float]
    grown_mb: float


def visit(way: str, options: argparse.Namespace, dice: random.Random) -> Visit:
    """Calls one worker for a while. Raises ValueError for a wrong answer."""
    graph = Graph("gc-pauses")
    cache = graph.add(Cache, way=way, objects=options.objects, cycles=options.cycles, kept=options.kept)
    graph.expose(cache.ask, cache.watch, cache.seen)
    with graph.run() as running:
        for number in range(WARM_UP):
            running.client.call("cache.ask", number)
        running.client.call("cache.watch")
        before = memory_mb(running)
        calls_us = sorted(called(running.client, options.seconds, options.rate, dice))
        grown_mb = memory_mb(running) - before
        seen = running.client.call("cache.seen")
    pauses = ([each / 1e6 for each in seen[where]] for where in ("in handlers", "outside"))
    return Visit(calls_us, sorted(each / 1e3 for each in seen["runs"]), *pauses, grown_mb)


def memory_mb(running: Any) -> float:
    (worker,) = running.status()["workers"]
    return pss_nbytes(worker["pid"]) / 2**20


def called(client: Any, seconds: float, rate: float, dice: random.Random) -> Iterator[float]:
    """How long each call took from the moment on when it was due."""
    due = time.perf_counter()
    until, number = due + seconds, 0
    while due < until:
        wait_s = due - time.perf_counter()
        if wait_s > SPUN_S:
            time.sleep(wait_s - SPUN_S)
        while rate and time.perf_counter() < due:
            pass
        if client.call("cache.ask", number) != number + 1:
            raise ValueError(f"the answer to {number} is wrong")
        now = time.perf_counter()
        yield (now - due) * 1e6
        due = due + dice.expovariate(rate) if rate else now
        number += 1


def quantile(ordered: list[float], share: float) -> float:
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each visit")
    parser.add_argument("--rate", type=float, default=400.0, help="calls a second; 0: one after the other")
    parser.add_argument("--objects", type=int, default=1_000_000, help="built by on_start")
    parser.add_argument("--cycles", type=int, default=20, help="garbage of each call")
    parser.add_argument("--kept", type=int, default=10, help="cycles of each call that become garbage later")
    parser.add_argument("--ways", default=",".join(WAYS), help="separated by commas")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    ways, dice = options.ways.split(","), random.Random(options.seed)
    visits: dict[str, list[Visit]] = {way: [] for way in ways}
    for _ in range(options.rounds):
        for way in dice.sample(ways, len(ways)):
            visits[way].append(visit(way, options, dice))
    heads = (
        "call p50",
        "p99",
        "run p50",
        "p99",
        "p99.9",
        "max µs",
        "pauses",
        "in all",
        "longest",
        "at rest",
        "MB more",
    )
    print(f"{'':13}" + "".join(f"{each:>9}" for each in heads))
    for way, seen in visits.items():
        print(f"{way:13}" + "".join(f"{each:9.1f}" for each in figures(seen)))


def figures(seen: list[Visit]) -> Iterator[float]:
    """Of one way, as the heads say: µs of calls and runs; number of pauses, ms in all; the longest in a handler and
    the longest outside; memory.
    """
    for share in SHARES[:2]:
        yield median(quantile(each.calls_us, share) for each in seen)
    for share in SHARES:
        yield median(quantile(each.runs_us, share) for each in seen)
    yield median(len(each.in_handlers_ms) + len(each.outside_ms) for each in seen)
    yield median(sum(each.in_handlers_ms) + sum(each.outside_ms) for each in seen)
    yield max((pause for each in seen for pause in each.in_handlers_ms), default=0.0)
    yield max((pause for each in seen for pause in each.outside_ms), default=0.0)
    yield median(each.grown_mb for each in seen)


if __name__ == "__main__":
    main()
