"""Counters and latencies of a worker, in shared memory: right after kill -9, and read without asking the worker.

The worker is the only writer; the supervisor reads. Counters go on where a predecessor stopped.
"""

from __future__ import annotations

from operator import add
from struct import Struct

from ...shm.layout import Group, Layout, Word
from ...shm.segment import Segment

# Latency of a handler in nanoseconds: four buckets to a doubling, so a quantile is right to within a quarter.
# 44 doublings are 4.9 hours.
_STEPS = 4
BUCKETS = 44 * _STEPS
_MOST_DOUBLINGS = 40

_READER = "supervisor"
# Counted by each process from 0 on: a successor adds what its predecessors have shown.
_WORKER_COUNTERS = ("spins", "parks", "wakes", "contended", "collections", "collecting_ns")
_WORKER_WORDS = (*_WORKER_COUNTERS, "longest_collection_ns", "slab_bytes", "slab_used_bytes", "blocks_out", "alive_ns")
# With native alignment a word is written by one store.
_WORKER_ROW = Struct(f"@{len(_WORKER_WORDS)}Q")
_CELL_WORDS = (
    "failed",
    "redelivered",
    "dead",
    "expired",
    "cancelled",
    "sent",
    "dropped",
    "in_flight",
    "outbox",
    "busy_ns",
    "busy_since_ns",
    "awaited_ns",
    "starved",
    "begun",
    "longest_wait_ns",
)
# What a successor begins anew; all else goes on.
_GAUGES = ("in_flight", "outbox", "busy_since_ns")

STATS = Layout(
    "stats",
    Group("worker", "worker", tuple(Word(name, name.replace("_", " "), _READER) for name in _WORKER_WORDS)),
    Group(
        "cells",
        "worker",
        (
            *(Word(name, name.replace("_", " "), _READER) for name in _CELL_WORDS),
            Word("latency", "runs by nanoseconds, four buckets to a doubling", _READER, nbytes=8 * BUCKETS),
        ),
        rows="actors",
    ),
)


class CellStats:
    """The row of one actor instance. Written by its worker, one thread."""

    __slots__ = ("_at", "_busy", "_first", "_latency", "busy_since", "row", "sent", "words")

    def __init__(self, segment: Segment, row: int) -> None:
        place = next(each for each in segment.placed.places if each.word.name == _CELL_WORDS[0])
        self.row = row
        self.words = segment.words
        self._first = (place.offset + row * place.stride) // 8
        self._at = {name: self._first + index for index, name in enumerate(_CELL_WORDS)}
        self._busy, self.sent = self._at["busy_ns"], self._at["sent"]
        self.busy_since = self._at["busy_since_ns"]
        self._latency = self._first + len(_CELL_WORDS)

    def count(self, name: str, by: int = 1) -> None:
        self.words[self._at[name]] += by

    def count_sent(self) -> None:
        """Counts what every message counts."""
        self.words[self.sent] += 1

    def show(self, name: str, value: int) -> None:
        """Sets a gauge."""
        self.words[self._at[name]] = value

    def waited(self, nanoseconds: int, *, is_starved: bool) -> None:
        """It gets its turn in its worker, after so long."""
        longest = self._at["longest_wait_ns"]
        if nanoseconds > self.words[longest]:
            self.words[longest] = nanoseconds
        if is_starved:
            self.count("starved")

    def begin(self, now_ns: int) -> None:
        """A handler starts to run: from here on it is busy, and may be hung."""
        self.words[self._busy + 1] = now_ns

    def end(self, started_ns: int, now_ns: int, *, waited: bool = False) -> None:
        """It has returned. `waited`: most of the time went by in `await`, so it counts as latency alone."""
        words, took = self.words, now_ns - started_ns
        if waited:
            words[self.busy_since + 1] += took
        else:
            words[self._busy] += took
            words[self.busy_since] = 0
        doubling = took.bit_length() - 3
        if 0 <= doubling < _MOST_DOUBLINGS:  # `_bucket`, without the price of a call
            words[self._latency + (doubling + 1) * _STEPS + (took >> doubling)] += 1
        else:
            words[self._latency + _bucket(took)] += 1

    def reset_gauges(self) -> None:
        """A successor starts with nothing in flight."""
        for name in _GAUGES:
            self.show(name, 0)

    def durations(self) -> list[int]:
        """How many runs took how long, by bucket: below `bucket_end_ns` of its number."""
        return self.words[self._latency : self._latency + BUCKETS].tolist()

    def read(self) -> dict[str, int]:
        """All counters and gauges, with `p50_us` and `p99_us` of the handler's runs."""
        values = {name: self.words[self._first + index] for index, name in enumerate(_CELL_WORDS)}
        buckets = self.durations()
        return {
            "handled": sum(buckets),
            **values,
            "p50_us": _quantile_us(buckets, 0.5),
            "p99_us": _quantile_us(buckets, 0.99),
        }


class WorkerStats:
    """The worker's own words."""

    def __init__(self, segment: Segment) -> None:
        self._words, self._bytes = segment.words, segment.bytes
        self._first = segment.placed.word(_WORKER_WORDS[0])
        before = self.read()
        self._before = [before[name] if name in _WORKER_COUNTERS else 0 for name in _WORKER_WORDS]

    def show(self, *values: int) -> None:
        """In the order of the words: counters as this process has counted them since its start, gauges as they are."""
        _WORKER_ROW.pack_into(self._bytes, 8 * self._first, *map(add, self._before, values))

    def show_alive(self, alive_ns: int) -> None:
        """Since when it has been awake; 0 while it sleeps."""
        self._words[self._first + len(_WORKER_WORDS) - 1] = alive_ns

    def read(self) -> dict[str, int]:
        return {name: self._words[self._first + index] for index, name in enumerate(_WORKER_WORDS)}


def _bucket(nanoseconds: int) -> int:
    """Which bucket counts it: by its highest bit and the two below."""
    doubling = nanoseconds.bit_length() - 3
    if doubling < 0:
        return 0
    return min((doubling + 2) * _STEPS + (nanoseconds >> doubling) - _STEPS, BUCKETS - 1)


def _quantile_us(buckets: list[int], share: float) -> int:
    """The upper bound, in microseconds, of the bucket that the quantile falls into."""
    wanted = share * sum(buckets)
    seen = 0
    for index, count in enumerate(buckets):
        seen += count
        if count and seen >= wanted:
            return max(1, bucket_end_ns(index) // 1000)
    return 0


def bucket_end_ns(index: int) -> int:
    """The least duration that a bucket does not hold any more."""
    doubling, step = divmod(index, _STEPS)
    return ((_STEPS + step + 1) << doubling) // _STEPS
