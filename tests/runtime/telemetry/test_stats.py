"""Counters and latencies in shared memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slabwire.runtime.telemetry.stats import STATS, CellStats, WorkerStats
from slabwire.shm.segment import Segment


def rows(actors: int) -> Segment:
    return Segment.create(STATS, "test", actors=actors)


@given(st.integers(1_000, 10**13))
def test_a_quantile_is_right_to_within_a_quarter(nanoseconds: int) -> None:
    segment = rows(1)
    stats = CellStats(segment, 0)
    stats.end(0, nanoseconds)
    assert nanoseconds / 1000 - 1 <= stats.read()["p50_us"] <= nanoseconds / 1000 * 1.26
    segment.close()


def test_quantiles_of_many() -> None:
    segment = rows(1)
    stats = CellStats(segment, 0)
    for _ in range(98):
        stats.end(0, 100_000)
    for _ in range(2):
        stats.end(0, 50_000_000)
    read = stats.read()
    assert read["handled"] == 100
    assert 100 <= read["p50_us"] <= 125
    assert 50_000 <= read["p99_us"] <= 62_500
    segment.close()


def test_a_successor_goes_on_counting_and_rows_are_apart() -> None:
    segment = rows(2)
    first, second = CellStats(segment, 0), CellStats(segment, 1)
    first.count("sent", 3)
    first.show("in_flight", 7)
    successor = CellStats(segment, 0)
    successor.count("sent")
    successor.reset_gauges()
    assert (successor.read()["sent"], successor.read()["in_flight"]) == (4, 0)
    assert not any(second.read().values())
    worker = WorkerStats(segment)
    worker.show(*range(1, 12))
    assert list(worker.read().values()) == list(range(1, 12))
    worker.show_alive(77)
    assert worker.read() == {**dict(zip(worker.read(), range(1, 11), strict=False)), "alive_ns": 77}
    assert not any(second.read().values())
    segment.close()


def test_pauses_of_a_successor_are_added_and_the_longest_is_its_own() -> None:
    segment = rows(1)
    WorkerStats(segment).show(0, 0, 0, 0, 5, 70, 40, 0, 0, 0, 0)
    WorkerStats(segment).show(0, 0, 0, 0, 1, 8, 8, 0, 0, 0, 0)
    read = WorkerStats(segment).read()
    assert [read[name] for name in ("collections", "collecting_ns", "longest_collection_ns")] == [6, 78, 8]
    segment.close()


@pytest.mark.parametrize("nanoseconds", [0, 1, 3, 4, 2**62])
def test_the_edges_of_the_histogram(nanoseconds: int) -> None:
    segment = rows(1)
    stats = CellStats(segment, 0)
    stats.end(0, nanoseconds)
    assert stats.read()["handled"] == 1
    assert stats.read()["p99_us"] >= 1
    segment.close()
