"""Litmus of the publish protocol between two processes: what is seen is whole and new, what is kept stays.

Records whose words all come from their number, and blocks full of it, each written again as soon as that is allowed.
Park and wake have theirs in test_bell.py.
"""

from __future__ import annotations

import os
import struct
from collections import deque
from collections.abc import Callable

import pytest

from edge import LANE_NUMBER, Edge
from slabwire.shm.lane import RECORD_NBYTES, Source
from slabwire.shm.lease import Lease
from slabwire.shm.pool import Pool
from slabwire.shm.producer import Producer

WORDS = RECORD_NBYTES // 8
_RECORD = struct.Struct(f"<{WORDS}Q")
BLOCK_NBYTES, BLOCKS = 2048, 8
# Of so many records one lends a block; the reader keeps so many blocks.
LENDS_EVERY, KEEPS = 4, 3
# Looks at a word before the other is given the processor, should it be on the same one.
LOOKS = 200


def _spin(ready: Callable[[], object], lives: Callable[[], bool]) -> None:
    looks = 0
    while not ready():
        looks += 1
        if looks % LOOKS == 0:
            os.sched_yield()
            if looks % (1000 * LOOKS) == 0 and not lives():
                raise ChildProcessError("the other end is gone")


def _fill(number: int) -> bytes:
    return struct.pack("<Q", number) * (BLOCK_NBYTES // 8)


def write(edge: Edge, rounds: int, lives: Callable[[], bool]) -> None:
    producer = edge.producer()
    pool = edge.recovered_pool(producer)
    buffer = producer.segment.bytes
    for number in range(rounds):
        _spin(producer.free_records, lives)
        place = (0, 0, 0)
        if number % LENDS_EVERY == 0:
            place = _lend(producer, pool, number, lives)
        _RECORD.pack_into(buffer, producer.slot(), *place, *(number,) * (WORDS - 3))
        producer.publish()
    _spin(lambda: producer.reap() >= 0 and pool.blocks_out == 0, lives)
    pool.close()


def _lend(producer: Producer, pool: Pool, number: int, lives: Callable[[], bool]) -> tuple[int, int, int]:
    def has_block() -> bool:
        producer.reap()
        return pool.blocks_out < BLOCKS and producer.can_lend()

    _spin(has_block, lives)
    block = pool.take(BLOCK_NBYTES)
    block.bytes()[:] = _fill(number)
    block.lends += 1
    return producer.lend(block.slab.identifier, block.index, block), block.index, block.generation


def read(edge: Edge, rounds: int, lives: Callable[[], bool]) -> None:
    consumer, slab = edge.consumer(), edge.slab(1)
    kept: deque[tuple[int, Lease]] = deque()
    for number in range(rounds):
        _spin(consumer.available, lives)
        row, index, generation, *words = _RECORD.unpack_from(consumer.segment.bytes, consumer.offset())
        if words != [number] * (WORDS - 3):
            raise ValueError(f"record {number} is torn or stale: {words}")
        if generation:
            lease = Lease(consumer, Source(LANE_NUMBER, row, number + 1), slab, index, generation, BLOCK_NBYTES)
            kept.append((number, lease))
            if lease.bytes() != _fill(number):
                raise ValueError(f"the block of record {number} is torn or stale")
        consumer.commit()
        if len(kept) > KEEPS:
            earlier, lease = kept.popleft()
            if lease.bytes() != _fill(earlier):
                raise ValueError(f"the block of record {earlier} was written before it was released")
            del lease


def _litmus(rounds: int, capacity: int) -> None:
    edge = Edge(capacity, leases=BLOCKS)
    edge.grow(BLOCK_NBYTES, BLOCKS)
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            read(edge, rounds, lambda: os.getppid() == parent)
            status = 0
        except Exception as error:
            os.write(2, f"{error!r}\n".encode())
        finally:
            os._exit(status)
    write(edge, rounds, lambda: os.waitpid(pid, os.WNOHANG) == (0, 0))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    edge.close()


@pytest.mark.parametrize("capacity", [2, 64])
def test_what_is_published_is_whole(capacity: int) -> None:
    _litmus(30_000, capacity)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("capacity", [8, 64])
def test_what_is_published_is_whole_in_ten_million_rounds(capacity: int) -> None:
    _litmus(10_000_000, capacity)
