"""Slabs and the pool: newest-freed block first, growth within a limit, successors, and no block out twice."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge import Edge, array_of, peek, receive, send_block
from slabwire.shm.block import SMALLEST_BLOCK_NBYTES, loaned_block, size_class
from slabwire.shm.errors import OutOfMemory, StaleReference
from slabwire.shm.lane import Source
from slabwire.shm.lease import Lease
from slabwire.shm.ledger import POISON


@pytest.fixture
def edge() -> Iterator[Edge]:
    edge = Edge(capacity=64, leases=128)
    yield edge
    edge.close()


@given(st.integers(1, 1 << 40))
def test_at_most_a_quarter_of_a_block_is_wasted(nbytes: int) -> None:
    size = size_class(nbytes)
    assert size >= nbytes
    assert size % 128 == 0
    assert size_class(size) == size
    assert size <= max(SMALLEST_BLOCK_NBYTES, nbytes * 1.25 + 128)


def test_big_blocks_of_a_ping_pong_stay_in_the_cache(edge: Edge) -> None:
    """The block that came back last goes out next, though many others are free."""
    producer, consumer = edge.producer(), edge.consumer()
    pool = edge.pool(producer)
    used = set()
    for value in range(40):
        used.add(send_block(producer, pool, value, 1 << 16).index)
        consumer.available()
        _, array = receive(consumer, edge.slab(1))
        del array
    assert len(used) == 1
    assert pool.slabs[1].blocks >= 16


def test_a_reader_that_keeps_the_last_array_makes_two_blocks_alternate(edge: Edge) -> None:
    producer, consumer = edge.producer(), edge.consumer()
    pool = edge.pool(producer)
    used, kept = set(), None
    for value in range(40):
        used.add(send_block(producer, pool, value, 1 << 16).index)
        consumer.available()
        kept = receive(consumer, edge.slab(1))[1]
    assert kept is not None
    assert len(used) <= 3


def test_looking_for_ended_loans_costs_the_same_however_many_are_out(edge: Edge) -> None:
    pool = edge.pool()
    looks = []
    pool._reap = lambda: looks.append(pool.blocks_out)
    held = [pool.take(100) for _ in range(1000)]
    assert held
    assert sum(looks) <= 1000 * 20


def test_a_block_comes_back_when_the_last_view_of_a_loan_dies(edge: Edge) -> None:
    pool = edge.pool()
    loan = pool.loan((4, 4), np.float32)
    view = loan[1:, ::2].T
    block = loaned_block(view)
    assert block is not None
    del loan, block
    gc.collect()
    pool.collect()
    assert pool.blocks_out == 1
    del view
    pool.collect()
    assert pool.blocks_out == 0


def test_a_loan_may_die_in_another_thread(edge: Edge) -> None:
    pool = edge.pool()
    loans = [pool.loan((8,), np.int64) for _ in range(200)]
    threads = [threading.Thread(target=lambda part=loans[i::4]: part.clear()) for i in range(4)]
    loans = []
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    del threads, thread
    pool.collect()
    assert (pool.blocks_out, pool.used_nbytes) == (0, 0)


def test_no_block_is_out_twice(edge: Edge) -> None:
    pool = edge.pool()
    block = pool.take(100)
    for _ in range(3):
        pool.reclaim(block)
    taken = [pool.take(100) for _ in range(pool.stats()["free"])]
    assert len({(each.slab.identifier, each.index) for each in taken}) == len(taken)
    addresses = {each.address() for each in taken}
    assert len(addresses) == len(taken)


def test_a_block_is_reused_only_when_view_and_all_leases_are_gone(edge: Edge) -> None:
    producer, consumer = edge.producer(), edge.consumer()
    pool = edge.pool(producer)
    block = send_block(producer, pool, 1)
    block.views = 1
    consumer.available()
    array = receive(consumer, edge.slab(1))[1]
    producer.reap()
    assert pool.blocks_out == 1
    del array
    producer.reap()
    assert pool.blocks_out == 1  # the producer still has its own view
    block.view_died()
    assert pool.blocks_out == 0


def test_freed_blocks_are_poisoned_in_debug_mode(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLABWIRE_DEBUG_BLOCKS", "1")
    edge.debug = False
    pool = edge.pool()
    block = pool.take(100)
    block.bytes()[:4] = b"abcd"
    room = block.bytes()
    pool.reclaim(block)
    assert set(room) == {POISON}


@pytest.mark.parametrize(("block", "generation"), [(0, 3), (0, 2), (0, 0), (1, 0), (64, 1), (1 << 31, 1)])
def test_a_stale_reference_is_an_error(edge: Edge, block: int, generation: int) -> None:
    pool = edge.pool()
    taken = pool.take(100)
    assert (taken.index, taken.generation) == (0, 1)
    with pytest.raises(StaleReference):
        edge.slab(1).check(block, generation, 1)
    with pytest.raises(StaleReference, match="with 999999"):
        edge.slab(1).check(0, 1, 999999)


def test_a_reference_is_stale_as_soon_as_its_block_is_free(edge: Edge) -> None:
    pool = edge.pool()
    block = pool.take(100)
    slab, generation = edge.slab(1), block.generation
    assert slab.check(block.index, generation, 1) == slab.offset(block.index)
    pool.reclaim(block)
    with pytest.raises(StaleReference):
        slab.check(block.index, generation, 1)
    with pytest.raises(StaleReference):
        slab.check(block.index, generation + 1, 1)  # nothing refers to a free block


def test_a_reference_of_a_dead_owner_never_shows_other_data(edge: Edge) -> None:
    producer = edge.producer()
    block = edge.pool(producer).take(100)  # and dies with it
    old = block.generation
    pool = edge.recovered_pool(edge.producer())
    assert pool.blocks_out == 0
    again = next(each for each in (pool.take(100) for _ in range(64)) if each.index == block.index)
    assert again.generation > old
    with pytest.raises(StaleReference):
        edge.slab(1).check(block.index, old, 1)


def test_a_successor_gets_back_each_block_that_was_out_once(edge: Edge) -> None:
    producer, consumer = edge.producer(), edge.consumer()
    pool = edge.pool(producer)
    block = send_block(producer, pool, 9)
    block.lends += 1  # the same block, to the same reader, once more
    row = producer.lend(1, block.index, block)
    assert row
    producer.publish()
    pool.take(100)  # out, and lent to nobody
    successor = edge.producer()
    recovered = edge.recovered_pool(successor)
    assert recovered.blocks_out == 1
    consumer.available()
    record = peek(consumer)
    lease = Lease(consumer, Source(7, record.row, 1), edge.slab(1), record.block, record.generation, 1)
    assert set(array_of(lease)) == {9}
    del lease
    successor.reap()
    assert recovered.blocks_out == 1
    consumer.release(row, 2)
    successor.reap()
    assert (recovered.blocks_out, recovered.used_nbytes) == (0, 0)


def test_a_pool_grows_up_to_its_limit_and_says_so(edge: Edge) -> None:
    pool = edge.pool(limit_nbytes=1 << 20)
    held = []

    def take_all() -> None:
        while True:
            held.append(pool.take(100_000))

    with pytest.raises(OutOfMemory, match=r"limit of 1048576 does not let them grow.*memory_bytes= of graph\.add"):
        take_all()
    assert 4 <= len(held) <= 10
    assert pool.nbytes <= (1 << 20) + 4096 * len(pool.slabs)
    pool.reclaim(held.pop())
    assert pool.take(100_000).slab.block_nbytes >= 100_000


def test_a_larger_block_that_lies_idle_is_used_before_giving_up(edge: Edge) -> None:
    pool = edge.pool(limit_nbytes=1_000_000)
    kept = pool.take(200_000)  # so that its slab cannot be given back whole
    assert pool.take(100_000).slab is kept.slab


def test_idle_slabs_of_other_sizes_make_room(edge: Edge) -> None:
    given_back: list[int] = []
    pool = edge.pool(limit_nbytes=1_000_000, shrink=given_back.append)
    for nbytes in (100_000, 150_000, 200_000, 100_000):
        pool.reclaim(pool.take(nbytes))
    assert len(given_back) == 3
    assert pool.nbytes <= 1_000_000
    assert pool.used_nbytes == 0


def test_a_closed_pool_takes_no_notice_of_blocks_that_come_back(edge: Edge) -> None:
    pool = edge.pool()
    block, loan = pool.take(100), pool.loan((3,), np.int8)
    pool.close()
    pool.reclaim(block)
    loan[:] = 1
    del loan
    pool.collect()
