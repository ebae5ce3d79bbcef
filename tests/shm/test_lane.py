"""Lanes: order, bounds, loans, successors, and words that no correct peer can have written."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge import Edge, lend, peek, receive, send_block, send_number
from slabwire.shm import fence
from slabwire.shm.bell import RECORDS, ROOM
from slabwire.shm.consumer import Consumer
from slabwire.shm.errors import CorruptLane
from slabwire.shm.lane import OUTCOMES, RECORD_NBYTES
from slabwire.shm.producer import Producer


@pytest.fixture
def edge() -> Iterator[Edge]:
    edge = Edge()
    yield edge
    edge.close()


def take_number(consumer: Consumer) -> int:
    value = peek(consumer).value
    consumer.commit()
    return value


def test_records_arrive_in_order_over_many_turns_of_the_ring(edge: Edge) -> None:
    producer, consumer = edge.producer(), edge.consumer()
    for value in range(50):
        send_number(producer, value)
        assert consumer.available() == 1
        assert take_number(consumer) == value
    assert producer.head == consumer.tail == 50


def test_a_full_lane_has_no_room_until_a_record_is_given_back(edge: Edge) -> None:
    producer, consumer = edge.producer(), edge.consumer()
    for value in range(4):
        send_number(producer, value)
    assert producer.free_records() == 0
    assert consumer.available() == 4
    assert producer.free_records() == 0  # read, but not given back
    consumer.commit()
    assert producer.free_records() == 1
    assert producer.waiting == 3
    assert consumer.waiting() == 3


def test_a_record_is_invisible_until_it_is_published(edge: Edge) -> None:
    producer, consumer = edge.producer(), edge.consumer()
    pool = edge.pool(producer)
    lend(producer, pool.take(100), 1)
    assert consumer.available() == 0
    successor = edge.producer()
    assert (successor.head, successor.unfinished) == (0, [])
    producer.publish()
    assert consumer.available() == 1


class Watched:
    """A view of words that writes down in which order they were stored, and what lay in the record meanwhile."""

    def __init__(self, producer: Producer) -> None:
        self.words, self.buffer, self.slot = producer.segment.words, producer.segment.bytes, producer.slot()
        self.record_at_store: dict[int, bytes] = {}

    def __getitem__(self, index: int) -> int:
        return self.words[index]

    def __setitem__(self, index: int, value: int) -> None:
        self.record_at_store[index] = bytes(self.buffer[self.slot : self.slot + 8])
        self.words[index] = value


def test_the_head_is_stored_after_the_record_and_the_loan(edge: Edge) -> None:
    producer = edge.producer()
    watched = Watched(producer)
    producer._words = watched  # type: ignore[assignment]
    send_block(producer, edge.pool(producer), 0xABCDEF)
    *before, last = watched.record_at_store
    assert last == producer.segment.placed.word("head")
    assert [producer.segment.placed.word("lent")] == before
    assert struct.unpack("<Q", watched.record_at_store[last]) == (0xABCDEF,)


class DiesAtStore:
    """Words that take no store: a process that is killed right before the first."""

    def __getitem__(self, index: int) -> int:
        return 0

    def __setitem__(self, index: int, value: int) -> None:
        raise InterruptedError


def test_the_generation_of_a_loan_is_stored_last_and_at_once(edge: Edge) -> None:
    """A successor takes a row for a loan by its generation, so the rest must be there before."""
    producer, consumer = edge.producer(), edge.consumer()
    pool = edge.pool(producer)
    first, start = send_block(producer, pool, 1), edge.lane.placed["lent"]
    consumer.release(0, 1)
    producer.reap()
    other = pool.take(5000)
    producer._words = DiesAtStore()  # type: ignore[assignment]
    with pytest.raises(InterruptedError):
        lend(producer, other, 2)
    assert other.slab is not first.slab
    assert struct.unpack_from("<QII", edge.lane.bytes, start) == (1, other.slab.identifier, other.index)
    assert edge.producer().unfinished == []


def test_where_stores_are_not_ordered_each_publication_is_fenced(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    fences: list[int] = []
    producer, consumer = edge.producer(), edge.consumer()
    monkeypatch.setattr(fence, "KEEPS_ORDER", False)
    monkeypatch.setattr(fence, "full_barrier", lambda: fences.append(producer.segment.words[16]))
    send_number(producer, 5)
    assert fences == [0]  # before the head, which is the first word of the second line
    consumer.available()
    consumer.commit()
    consumer.release(0, 1)
    assert len(fences) == 3


def test_a_successor_of_the_consumer_sees_what_was_not_given_back(edge: Edge) -> None:
    producer, consumer = edge.producer(), edge.consumer()
    for value in range(3):
        send_number(producer, value)
    assert consumer.available()
    assert take_number(consumer) == 0
    successor = edge.consumer()
    assert [successor.available(), take_number(successor), take_number(successor)] == [2, 1, 2]
    assert successor.available() == 0


def test_a_successor_of_the_producer_goes_on_where_it_stopped(edge: Edge) -> None:
    producer, consumer = edge.producer(), edge.consumer()
    send_number(producer, 1)
    successor = edge.producer()
    assert successor.free_records() == 3
    send_number(successor, 2)
    assert [consumer.available(), take_number(consumer), take_number(consumer)] == [2, 1, 2]


def test_a_successor_adopts_loans_that_have_not_ended(edge: Edge) -> None:
    producer, consumer = edge.producer(), edge.consumer()
    pool = edge.pool(producer)
    first, second = send_block(producer, pool, 1), send_block(producer, pool, 2)
    consumer.available()
    record, array = receive(consumer, edge.slab(1))
    del array  # the first loan has ended
    assert record.block == first.index
    successor = edge.producer()
    assert [(each.block, each.generation) for each in successor.unfinished] == [(second.index, 2)]


def test_a_loan_whose_record_was_never_published_haunts_no_later_successor(edge: Edge) -> None:
    producer = edge.producer()
    lend(producer, edge.pool(producer).take(100), 1)  # killed before `publish`
    second = edge.producer()
    assert second.unfinished == []
    send_number(second, 2)  # takes the number that the dead record would have had
    third = edge.producer()
    assert third.unfinished == []
    assert third.can_lend()
    assert len(third._free_rows) == third.leases


def test_rows_of_loans_are_used_again_only_when_the_consumer_has_ended_them(edge: Edge) -> None:
    producer, consumer = edge.producer(), edge.consumer()
    pool, slab = edge.pool(producer), None
    held = []
    for value in range(producer.leases):
        assert producer.can_lend()
        send_block(producer, pool, value)
        slab = slab or edge.slab(1)
        consumer.available()
        held.append(receive(consumer, slab)[1])
    assert not producer.can_lend()
    held.pop(3)
    assert producer.can_lend()
    assert pool.blocks_out == producer.leases - 1


def test_an_end_said_twice_does_not_take_back_a_later_one(edge: Edge) -> None:
    producer, consumer = edge.producer(), edge.consumer()
    pool = edge.pool(producer)
    for generation in (1, 2):
        send_block(producer, pool, generation)
        consumer.available()
        row = peek(consumer).row
        consumer.commit()
        consumer.release(row, generation)
        if generation == 1:
            assert producer.reap() == 1
    consumer.release(row, 1)
    assert producer.reap() == 1
    assert not producer.holders


def test_release_all_but_ends_a_predecessors_loans_and_spares_those_needed(edge: Edge) -> None:
    producer, consumer = edge.producer(), edge.consumer()
    pool = edge.pool(producer)
    rows = []
    for value in range(3):
        send_block(producer, pool, value)
        consumer.available()
        rows.append(peek(consumer).row)
        consumer.commit()
    successor = edge.consumer()
    successor.release_all_but({rows[1]})
    late = send_block(producer, pool, 3)
    producer.reap()
    assert {holder for _, holder in producer.holders.values()} >= {late}
    assert len(producer.holders) == 2


def test_end_all_gives_every_block_back_once(edge: Edge) -> None:
    producer = edge.producer()
    pool = edge.pool(producer)
    block = pool.take(100)
    for value in range(3):
        lend(producer, block, value)
        producer.publish()
    producer.end_all()
    producer.end_all()
    assert (pool.blocks_out, pool.used_nbytes, block.lends) == (0, 0, 0)
    assert len({pool.take(100).index for _ in range(pool.slabs[1].blocks)}) == pool.slabs[1].blocks


def test_a_loan_for_a_consumer_that_is_gone_ends_when_it_is_published(edge: Edge) -> None:
    """The sender heard of it in the middle of a message, while it asked for memory."""
    producer = edge.producer()
    pool = edge.pool(producer)
    block = pool.take(100)
    producer.end_all()
    lend(producer, block, 1)
    assert pool.blocks_out == 1, "it is being written"
    producer.publish()
    assert (pool.blocks_out, block.lends) == (0, 0)


def test_bells_are_rung_for_records_and_room(edge: Edge) -> None:
    bells = [edge.bell(0), edge.bell(1)]
    producer, consumer = edge.producer(), edge.consumer()
    bells[1].park(RECORDS)
    send_number(producer, 1)
    bells[1].unpark()
    bells[0].park(ROOM)
    consumer.available()
    consumer.commit()
    bells[0].unpark()
    assert [bell.wakes for bell in bells] == [1, 1]
    for bell in bells:
        bell.close()


@pytest.mark.parametrize("head", [5, 1 << 63, (1 << 64) - 1])
def test_a_head_that_cannot_be_right_is_an_error(edge: Edge, head: int) -> None:
    consumer = edge.consumer()
    edge.lane.words[edge.lane.placed.word("head")] = head
    with pytest.raises(CorruptLane, match="lane 7: head"):
        consumer.available()


@pytest.mark.parametrize("tail", [5, (1 << 64) - 1])
def test_a_tail_that_cannot_be_right_is_an_error(edge: Edge, tail: int) -> None:
    producer = edge.producer()
    for value in range(4):
        send_number(producer, value)
    edge.returns.words[edge.returns.placed.word("tail")] = tail
    with pytest.raises(CorruptLane, match="tail"):
        producer.free_records()
    with pytest.raises(CorruptLane, match="tail"):
        edge.producer()


WORDS = st.one_of(st.integers(0, 12), st.integers(0, (1 << 64) - 1))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damage=st.lists(st.tuples(st.integers(8, 223), WORDS), max_size=6), sends=st.integers(0, 4))
def test_damaged_words_are_errors_and_never_a_crash_or_a_hang(
    edge: Edge, damage: list[tuple[int, int]], sends: int
) -> None:
    """Whatever lies behind the header, both ends either work within their bounds or raise CorruptLane."""
    for segment in (edge.lane, edge.returns):
        segment.bytes[128:] = bytes(len(segment.bytes) - 128)
    producer, consumer = edge.producer(), edge.consumer()
    for value in range(sends):
        send_number(producer, value)
    for index, value in damage:
        words = (edge.lane, edge.returns)[index % 2].words
        words[128 // 8 + index % (len(words) - 16)] = value
    for work in (producer.free_records, consumer.available, edge.producer, edge.consumer, producer.reap):
        try:
            work()
        except CorruptLane:
            continue
    try:
        for _ in range(consumer.available()):
            assert consumer.segment.placed["record"] <= consumer.offset() <= len(consumer.segment.bytes) - RECORD_NBYTES
            consumer.commit()
    except CorruptLane:
        pass
    consumer.release_all_but(set())


def test_stats_tell_what_is_out(edge: Edge) -> None:
    producer, consumer = edge.producer(), edge.consumer()
    send_block(producer, edge.pool(producer), 1)
    assert producer.stats() == {"published": 1, "waiting": 1, "capacity": 4, "lent": 1, **dict.fromkeys(OUTCOMES, 0)}
    assert consumer.stats() == {"taken": 0, "waiting": 1, "capacity": 4, "high_water": 0, "refused": 0}
    consumer.available()
    consumer.refuse()
    producer.count("blocked_ns", 7)
    assert {**consumer.stats(), **producer.stats()}.items() >= {"high_water": 1, "refused": 1, "blocked_ns": 7}.items()
    successors = edge.producer(), edge.consumer()
    assert successors[0].stats()["blocked_ns"] == 7
    assert successors[1].stats()["high_water"] == 1


@pytest.mark.parametrize("later", [1 << 32, 7 << 32, 1 << 40, 128, 1 << 20])
def test_what_was_read_of_one_stream_is_not_said_of_a_later_one(edge: Edge, later: int) -> None:
    """Also where the later one is a successor's, whose numbers differ in their upper half alone."""
    producer, consumer = edge.producer(), edge.consumer()
    first = (5 << 32) + 2
    assert producer.items_read(first) == 0
    consumer.note_read(first, 102)
    assert producer.items_read(first) == 102
    assert producer.items_read(first + later) == 0
    consumer.note_read(first + later, 1)
    assert producer.items_read(first + later) == 1
