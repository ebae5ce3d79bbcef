"""One lane with its bells and slabs, and two parties that map them separately, as two processes would."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from slabwire.shm.bell import BELL, Bell, Ringer, new_doorbell
from slabwire.shm.block import Block
from slabwire.shm.consumer import Consumer
from slabwire.shm.lane import LANE, RETURNS, Source
from slabwire.shm.layout import LINE_NBYTES, Layout
from slabwire.shm.lease import Lease
from slabwire.shm.ledger import Ledger
from slabwire.shm.pool import Pool
from slabwire.shm.producer import Producer
from slabwire.shm.segment import Segment
from slabwire.shm.slab import SLAB, Slab

LANE_NUMBER = 7
_RECORD = struct.Struct("<QQIIQ")


class Record(NamedTuple):
    """What these tests send: a value, and a block that is full of it (generation 0: none)."""

    value: int
    generation: int = 0
    slab: int = 0
    block: int = 0
    row: int = 0


def new_lane(capacity: int, leases: int) -> tuple[Segment, Segment]:
    """Both segments of one lane, in the order in which its ends are offered them."""
    lane = Segment.create(LANE, "a lane", capacity=capacity, leases=leases)
    return lane, Segment.create(RETURNS, "returns of a lane", leases=leases, streams=1)


class Edge:
    """Holds the segments as a supervisor does; each end that it makes has mappings of its own."""

    def __init__(self, capacity: int = 4, leases: int = 8, *, debug: bool = True) -> None:
        self.debug = debug
        self.lane, self.returns = new_lane(capacity, leases)
        self.bells = [Segment.create(BELL, "a bell", calls=1) for _ in range(2)]
        self.doorbells = [new_doorbell(), new_doorbell()]
        self.slabs: dict[int, Segment] = {}
        self._bells: list[Bell] = []

    def map(self, segment: Segment, layout: Layout, *, writable: bool) -> Segment:
        """A mapping of its own, whose descriptor is closed at once."""
        mapped = Segment.open(os.dup(segment.fd), layout, writable=writable)
        mapped.close_descriptor()
        return mapped

    def ringer(self, party: int) -> Ringer:
        """Shares the doorbell, which stays this edge's own: not to be closed."""
        return Ringer(self.map(self.bells[party], BELL, writable=False), self.doorbells[party])

    def bell(self, party: int) -> Bell:
        """A party's own side, closed with this edge at the latest."""
        own = self.map(self.bells[party], BELL, writable=True)
        self._bells.append(Bell(own, os.dup(self.doorbells[party])))
        return self._bells[-1]

    def producer(self) -> Producer:
        lane, returns = self.map(self.lane, LANE, writable=True), self.map(self.returns, RETURNS, writable=False)
        return Producer(lane, returns, self.ringer(1))

    def consumer(self) -> Consumer:
        lane, returns = self.map(self.lane, LANE, writable=False), self.map(self.returns, RETURNS, writable=True)
        return Consumer(LANE_NUMBER, lane, returns, self.ringer(0))

    def pool(
        self,
        producer: Producer | None = None,
        *,
        limit_nbytes: int = 1 << 24,
        ledger: Ledger | None = None,
        shrink: Callable[[int], None] = lambda _: None,
    ) -> Pool:
        """The producer's pool; it holds what a predecessor's slabs hold once `join_all` was called."""
        ledger = ledger or (Ledger() if self.debug else None)

        def reap() -> None:
            if producer is not None:
                producer.reap()

        return Pool(self.grow, reap, limit_nbytes, ledger=ledger, shrink=shrink)

    def grow(self, block_nbytes: int, blocks: int) -> Slab:
        lines = blocks * block_nbytes // LINE_NBYTES
        number = len(self.slabs) + 1
        self.slabs[number] = Segment.create(SLAB, "a slab", blocks=blocks, payload_lines=lines)
        return self.slab(number, writable=True)

    def slab(self, number: int, *, writable: bool = False) -> Slab:
        return Slab(number, self.map(self.slabs[number], SLAB, writable=writable))

    def recovered_pool(self, producer: Producer) -> Pool:
        """A successor's pool: what the predecessor had lent is out, everything else is free."""
        pool = self.pool(producer)
        slabs = {number: self.slab(number, writable=True) for number in self.slabs}
        out: dict[int, dict[int, Block]] = {}
        for lent in producer.unfinished:
            fresh = Block(pool, slabs[lent.slab], lent.block)
            block = out.setdefault(lent.slab, {}).setdefault(lent.block, fresh)
            block.lends += 1
            producer.adopt(lent, block)
        producer.unfinished.clear()
        for number, slab in slabs.items():
            pool.join(slab, out.get(number))
        return pool

    def close(self) -> None:
        for bell in self._bells:
            bell.close()
        self._bells.clear()
        for doorbell in self.doorbells:
            os.close(doorbell)
        for segment in (self.lane, self.returns, *self.bells, *self.slabs.values()):
            segment.close()


def write_record(producer: Producer, record: Record) -> None:
    _RECORD.pack_into(producer.segment.bytes, producer.slot(), *record)


def send_number(producer: Producer, value: int) -> None:
    write_record(producer, Record(value))
    producer.publish()


def lend(producer: Producer, block: Block, value: int) -> None:
    """Writes, but does not publish, a record that lends a block."""
    block.lends += 1
    row = producer.lend(block.slab.identifier, block.index, block)
    write_record(producer, Record(value, block.generation, block.slab.identifier, block.index, row))


def send_block(producer: Producer, pool: Pool, value: int, nbytes: int = 1000) -> Block:
    """Fills a block with the value and lends it to the other end."""
    block = pool.take(nbytes)
    np.frombuffer(block.bytes(), np.uint8)[:] = value % 251
    lend(producer, block, value)
    producer.publish()
    return block


def peek(consumer: Consumer) -> Record:
    return Record._make(_RECORD.unpack_from(consumer.segment.bytes, consumer.offset()))


def lease_of_record(consumer: Consumer, record: Record, sequence: int, slab: Slab) -> Lease:
    return Lease(consumer, Source(LANE_NUMBER, record.row, sequence + 1), slab, record.block, record.generation, 1)


def array_of(lease: Lease, nbytes: int = 1000) -> NDArray[Any]:
    return lease.array(0, (nbytes,), np.dtype(np.uint8), None)


def receive(consumer: Consumer, slab: Slab) -> tuple[Record, NDArray[Any]]:
    """The next record and an array over its block; the record is given back."""
    record = peek(consumer)
    array = array_of(lease_of_record(consumer, record, consumer.cursor, slab))
    consumer.commit()
    return record, array
