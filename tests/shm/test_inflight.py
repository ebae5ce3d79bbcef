"""The in-flight table: what is begun is found by a successor, what is finished is not."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from slabwire.shm.inflight import INFLIGHT, RUNNING_ROW, Inflight, Input
from slabwire.shm.lane import RECORD_NBYTES
from slabwire.shm.segment import Segment


@pytest.fixture
def segment() -> Iterator[Segment]:
    made = Segment.create(INFLIGHT, "a table", inputs=4)
    yield made
    made.close()


def _table(segment: Segment) -> Inflight:
    mapped = Segment.open(os.dup(segment.fd), INFLIGHT, writable=True)
    mapped.close_descriptor()
    return Inflight(mapped)


def _record(fill: int) -> memoryview:
    return memoryview(bytes([fill]) * RECORD_NBYTES)


def test_a_successor_finds_what_was_not_finished(segment: Segment) -> None:
    table = _table(segment)
    table.begin_running(3, 8, 1)
    rows = [table.keep(5, sequence, 2, _record(sequence)) for sequence in (10, 11, 12)]
    table.sent(rows[2], 4)
    table.clear(rows[1])
    successor = _table(segment)
    assert successor.live() == [
        Input(RUNNING_ROW, 3, 8, 1, 0),
        Input(rows[0], 5, 10, 2, 0),
        Input(rows[2], 5, 12, 2, 4),
    ]
    assert bytes(successor.record(rows[2])) == bytes(_record(12))
    assert successor.stats() == {"rows": 3, "free": 1}
    assert successor.keep(5, 13, 1, _record(13)) == rows[1]
    assert not successor.can_keep()


def test_attempts_are_counted_where_the_next_successor_sees_them(segment: Segment) -> None:
    row = _table(segment).keep(1, 1, 1, _record(1))
    _table(segment).restart(row, 2)
    assert _table(segment).live() == [Input(row, 1, 1, 2, 0)]


def test_pardons_are_counted_beside_the_attempts(segment: Segment) -> None:
    table = _table(segment)
    table.begin_running(3, 8, 2)
    row = table.keep(1, 1, 1, _record(1))
    for attempt in (2, 3):
        table.pardon()
        table = _table(segment)
        table.restart(row, attempt)
        table.begin_running(3, 8, attempt + 1)
    assert table.live() == [Input(RUNNING_ROW, 3, 8, 4, 0, pardons=2), Input(row, 1, 1, 3, 0, pardons=2)]
    table.clear(row)
    assert table.keep(1, 2, 1, _record(2)) == row
    assert table.live()[1].pardons == 0


def test_a_row_used_again_starts_with_no_outputs(segment: Segment) -> None:
    table = _table(segment)
    row = table.keep(1, 1, 1, _record(1))
    table.sent(row, 9)
    table.clear(row)
    assert table.keep(1, 2, 1, _record(2)) == row
    assert table.live() == [Input(row, 1, 2, 1, 0)]


def test_clearing_twice_does_not_give_a_row_to_two_inputs(segment: Segment) -> None:
    table = _table(segment)
    row = table.keep(1, 1, 1, _record(1))
    table.clear(row)
    table.clear(row)
    table.begin_running(1, 2, 1)
    table.clear(RUNNING_ROW)
    rows = [table.keep(1, sequence, 1, _record(1)) for sequence in range(3)]
    assert sorted(rows) == [1, 2, 3]
    assert not table.can_keep()


def test_a_record_of_a_wrong_size_costs_no_row(segment: Segment) -> None:
    table = _table(segment)
    with pytest.raises(ValueError, match="256 bytes, not 3"):
        table.keep(1, 1, 1, memoryview(b"abc"))
    assert table.stats()["free"] == 3


class DiesAtStore:
    """Words that let so many stores through, and then no more: a process that is killed there."""

    def __init__(self, words: memoryview, stores: int) -> None:
        self.words, self.left = words, stores

    def __getitem__(self, index: int) -> int:
        return self.words[index]

    def __setitem__(self, index: int, value: int) -> None:
        self.left -= 1
        if self.left < 0:
            raise InterruptedError
        self.words[index] = value


@pytest.mark.parametrize("stores", range(7))
def test_a_death_at_any_store_shows_a_whole_input_or_none(segment: Segment, stores: int) -> None:
    table = _table(segment)
    table.clear(table.keep(9, 9, 9, _record(9)))
    table._words = DiesAtStore(table._words, stores)  # type: ignore[assignment]
    if stores < 6:
        with pytest.raises(InterruptedError):
            table.keep(1, 2, 3, _record(4))
        assert _table(segment).live() == []
    else:
        row = table.keep(1, 2, 3, _record(4))
        assert _table(segment).live() == [Input(row, 1, 2, 3, 0)]
        assert bytes(_table(segment).record(row)) == bytes(_record(4))


def test_a_row_tells_by_how_many_ways_the_next_output_has_left(segment: Segment) -> None:
    table = _table(segment)
    table.begin_running(3, 8, 1)
    table.sent(RUNNING_ROW, 1 << 40, 3)
    assert _table(segment).live() == [Input(RUNNING_ROW, 3, 8, 1, 1 << 40, 3)]
    table.begin_running(3, 8, 2)
    assert _table(segment).live() == [Input(RUNNING_ROW, 3, 8, 2, 1 << 40, 3)]
    table.begin_running(3, 9, 1)
    assert _table(segment).live() == [Input(RUNNING_ROW, 3, 9, 1, 0, 0)]


def test_a_row_tells_whether_items_of_a_stream_were_taken_for_it(segment: Segment) -> None:
    table = _table(segment)
    row = table.keep(1, 2, 1, _record(1))
    assert not _table(segment).live()[0].has_taken
    table.take(row)
    table.sent(row, 1)
    assert _table(segment).live() == [Input(row, 1, 2, 1, 1, has_taken=True)]
    table.clear(row)
    assert table.keep(1, 3, 1, _record(1)) == row
    assert not _table(segment).live()[0].has_taken
