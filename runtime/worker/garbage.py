"""When a worker collects cyclic garbage: while nothing waits for it, as far as that can be had."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

from ...shm.bell import now_ns

_ALL = 2
# So many new objects make Python itself collect, in the middle of a handler, where a worker never rests. At 700, 2,000
# and 5,000 the p99 of a handler that makes 70 cycles a run is 210, 383 and 773 µs, its p99.9 0.5, 1.2 and 2.8 ms, and
# all pauses together are 71, 81 and 77 ms of 3 s (`tools/gc_pauses.py --rate 0 --cycles 50 --kept 20`, CPU time on a
# busy machine). So more makes single pauses longer and saves nothing; 2,000 is Python's own number from 3.13 on, and
# leaves most collections to the next rest.
YOUNG = 2000
# So many are worth a collection before a sleep, which takes some 10 µs. With it the p99 of that handler is 71 µs at 400
# calls a second, without it 432 µs, and with no collector at all 66 µs; of the longest run 0.6, 1.4 and 0.2 ms.
WORTHWHILE = 500
# Of what takes t, at rest, so many times t must lie between two: then a message that comes at a random moment meets one
# with a chance of 1 % at most.
SHARE = 100
# Whoever has left a worker alone for this long is not about to come in the next moment. It also bounds how long an idle
# worker keeps a block that a cycle holds.
IDLE_NS = 1_000_000_000


class Garbage:
    """Of a worker's process: thresholds from the beginning on, `settle` once the actors have started, `rest` before
    each sleep, `woke` after it.

    What user code sets by the module `gc` stands: where it has set thresholds of its own or has disabled the collector,
    collections are measured, and nothing else is done. `collections` counts them since `settle`; `collecting_ns` is how
    long all of them took, `longest_ns` the longest.
    """

    def __init__(self) -> None:
        gc.set_threshold(YOUNG)
        self._thresholds = gc.get_threshold()
        self._took_ns = [0] * (_ALL + 1)  # the last collection of each generation
        self._began_ns = self._ended_ns = 0
        self._idle_from_ns = 0  # a sleep that lasts until then is a long one; 0: none has begun
        self._is_clean = False  # nothing has happened since all was collected
        self.collections = self.collecting_ns = self.longest_ns = 0

    @property
    def is_ours(self) -> bool:
        """Whether user code has left the collector to us."""
        return gc.get_threshold() == self._thresholds and gc.isenabled()

    def settle(self) -> None:
        """What there is now stays: no collection looks through it any more. From here on collections are measured."""
        if self.is_ours:
            gc.collect()
            gc.freeze()
            gc.collect()  # of nothing: up to then Python counts the frozen as a heap that must grow by a quarter first
        gc.callbacks.append(self._heard)

    def _heard(self, phase: str, told: dict[str, Any]) -> None:
        """Any thread; never while it runs already."""
        now = now_ns()
        if phase == "start":
            self._began_ns = now
            return
        took = now - self._began_ns
        self._ended_ns = now
        self._took_ns[told["generation"]] = took
        self.collections += 1
        self.collecting_ns += took
        self.longest_ns = max(self.longest_ns, took)

    def rest(self, now: int, longest_s: float | None, has_news: Callable[[], bool]) -> float | None:
        """Before a sleep of so many seconds at most (None: without a limit). Returns how many it may last.

        That is 0 where something was collected: a finalizer may have given the event loop something to do.
        """
        if not self.is_ours:
            return longest_s
        is_idle, self._idle_from_ns = 0 < self._idle_from_ns <= now, 0
        is_worthwhile = gc.get_count()[0] >= WORTHWHILE
        generation = _ALL if is_idle else self._young(now) if is_worthwhile else None
        if generation is not None and self._fits(generation, longest_s) and not has_news():
            gc.collect(generation)
            self._is_clean = generation == _ALL
            return 0.0
        idle_ns = max(IDLE_NS, SHARE * self._took_ns[_ALL])
        if self._is_clean or (longest_s is not None and longest_s * 1e9 <= idle_ns):
            return longest_s
        self._idle_from_ns = now + idle_ns
        return idle_ns / 1e9

    def woke(self, now: int) -> None:
        """After a sleep."""
        self._is_clean = False
        if now < self._idle_from_ns:
            self._idle_from_ns = 0

    def _young(self, now: int) -> int | None:
        """Which of the younger generations is due, by the numbers by which Python itself decides."""
        generation = int(gc.get_count()[1] > self._thresholds[1])
        return generation if now - self._ended_ns >= SHARE * self._took_ns[generation] else None

    def _fits(self, generation: int, longest_s: float | None) -> bool:
        return longest_s is None or longest_s * 1e9 >= self._took_ns[generation]
