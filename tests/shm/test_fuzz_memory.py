"""Corrupted shared memory: whoever reads it raises an error of ours, and neither another one, nor dies, nor hangs."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import socket
import struct
from collections.abc import Callable
from functools import partial
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from children import in_a_child
from edge import Edge, send_number
from exchange import Exchange
from slabwire.runtime.cell.inlets import Inlets
from slabwire.runtime.cell.redelivery import unfinished_works
from slabwire.runtime.dataplane.endpoint import Endpoint
from slabwire.runtime.errors import SlabwireError
from slabwire.runtime.message.header import Kind, read_header
from slabwire.runtime.message.payload import Payload
from slabwire.shm.bell import BELL, BLOCKS, RECORDS, ROOM
from slabwire.shm.block import size_class
from slabwire.shm.errors import LayoutError, OutOfMemory
from slabwire.shm.inflight import INFLIGHT
from slabwire.shm.lane import LANE, RECORD_NBYTES, RETURNS
from slabwire.shm.layout import HEADER, Layout, all_layouts
from slabwire.shm.segment import Segment
from slabwire.shm.slab import SLAB, Slab

SENDER, READER = 1, 2
SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW


def interesting(dice: random.Random) -> int:
    """A word that somebody might not expect."""
    near = dice.choice(
        [0, 1 << 7, 1 << 8, 1 << 15, 1 << 16, 1 << 31, 1 << 32, 1 << 40, 1 << 62, 1 << 63, (1 << 64) - 4]
    )
    return max(0, min((1 << 64) - 1, near + dice.randrange(-3, 4))) if dice.random() < 0.7 else dice.getrandbits(64)


def corrupt(room: memoryview, dice: random.Random) -> None:
    """Changes a few bytes, a word, or everything."""
    way = dice.randrange(4)
    if way == 0:
        for _ in range(dice.randrange(1, 5)):
            room[dice.randrange(len(room))] = dice.randrange(256)
    elif way == 1:
        struct.pack_into("<Q", room, dice.randrange(len(room) - 7), interesting(dice))
    elif way == 2:
        start = dice.randrange(len(room))
        room[start:] = dice.randbytes(len(room) - start)
    else:
        bit = dice.randrange(8 * len(room))
        room[bit // 8] ^= 1 << bit % 8


# -- messages --------------------------------------------------------------------------------------------------------

MESSAGES: list[Callable[[], Any]] = [
    lambda: {"n": 1, "list": [1.5, None, "text", b"bytes"]},
    lambda: np.arange(10),
    lambda: np.zeros((2, 0, 3), np.float32),
    lambda: np.arange(200),
    lambda: [np.arange(100), {"x": np.ones((5, 7), ml_dtypes.bfloat16)}, np.arange(90.0)],
    lambda: {"text": "x" * 900, "x": np.arange(50)},
]
SIZES = (2048, size_class(1600 + 1024))


def exchange_of_two() -> tuple[Exchange, int]:
    exchange = Exchange(SENDER, READER)
    lane = exchange.connect(SENDER, READER, capacity=4, leases=8)
    for size in SIZES:
        exchange.add_slab(SENDER, size, 8)
    return exchange, lane


def touch(value: Any) -> None:
    """Reads every byte of what came."""
    if isinstance(value, np.ndarray):
        assert len(value.tobytes()) == value.nbytes
        assert not value.flags.writeable
    elif isinstance(value, dict):
        for each in value.values():
            touch(each)
    elif isinstance(value, list):
        for each in value:
            touch(each)


def fuzz_messages(dice: random.Random) -> None:
    exchange, lane = exchange_of_two()
    sender, reader = exchange.endpoint(SENDER), exchange.endpoint(READER)
    for each in (sender, reader):
        each.recover()
    producer, consumer = sender.producers[lane], reader.consumers[lane]
    refused = passed = 0
    for _ in range(3000):
        payload = Payload(dice.choice(MESSAGES)(), sender.pool)
        payload.publish(producer, Kind.DATA, 0, (0,) * 13)
        if payload.holder is not None and dice.random() < 0.5:
            corrupt(payload.holder.bytes(), dice)
        else:
            start = consumer.offset()
            corrupt(producer.segment.bytes[start : start + RECORD_NBYTES], dice)
        payload.close()
        assert consumer.available() == 1
        try:
            touch(_opened(reader, lane))
            passed += 1
        except SlabwireError:
            refused += 1
        consumer.commit()
        for row in range(consumer.leases):
            consumer.release(row, consumer.tail)  # as a successor does
        sender.reap()
    assert min(passed, refused) > 100
    assert sender.pool.blocks_out == 0


def _opened(reader: Endpoint, lane: int) -> Any:
    consumer = reader.consumers[lane]
    inlets = Inlets(routes=1)
    inlets.add(consumer)
    header = inlets.header(consumer, consumer.cursor)
    return reader.open(consumer, header, consumer.cursor)


# -- lanes, tables, slabs --------------------------------------------------------------------------------------------


def fuzz_lanes(dice: random.Random) -> None:
    """Both ends over a lane whose words are anything: those that were there, and those that come."""
    for _ in range(300):
        edge = Edge()
        producer, consumer = edge.producer(), edge.consumer()
        for value in range(dice.randrange(4)):
            send_number(producer, value)
        for _ in range(dice.randrange(1, 4)):
            name = dice.choice(["head", "tail", "lent", "released", "read"])
            _spoil(edge, name, dice)
        uses: list[Callable[[], None]] = [
            partial(_use_producer, producer, dice),
            partial(_use_consumer, consumer, dice),
            lambda edge=edge: _use_producer(edge.producer(), dice),  # type: ignore[misc]
            lambda edge=edge: _use_consumer(edge.consumer(), dice),  # type: ignore[misc]
        ]
        for use in uses:
            with contextlib.suppress(SlabwireError):
                use()
        edge.close()


def _spoil(edge: Edge, name: str, dice: random.Random) -> None:
    segments = (edge.lane, edge.returns)
    segment, place = next((s, each) for s in segments for each in s.placed.places if each.word.name == name)
    offset = place.offset + dice.randrange(place.rows) * place.stride
    struct.pack_into("<Q", segment.bytes, offset + dice.randrange(0, place.word.nbytes, 8), interesting(dice))


def _use_producer(producer: Any, dice: random.Random) -> None:
    producer.free_records(2)
    producer.items_read(dice.getrandbits(64))
    producer.reap()
    producer.can_lend()
    producer.stats()


def _use_consumer(consumer: Any, dice: random.Random) -> None:
    consumer.read_head()
    while consumer.available():
        consumer.record(consumer.cursor)
        consumer.commit()
    consumer.note_read(dice.getrandbits(32), 5)
    consumer.release_all_but({1})
    consumer.stats()


def fuzz_successors(dice: random.Random) -> None:
    """Whoever takes over from a predecessor whose words are anything."""
    for _ in range(150):
        exchange, lane = exchange_of_two()
        sender = exchange.endpoint(SENDER)
        sender.recover()
        for number in range(dice.randrange(4)):
            Payload(MESSAGES[(number + 3) % 5](), sender.pool).publish(sender.producers[lane], Kind.DATA, 0, (0,) * 13)
        table = exchange.table(READER)
        table.begin_running(lane, 0, 1)
        table.keep(lane, 1, 1, sender.producers[lane].segment.bytes[:RECORD_NBYTES])
        segments = [exchange.tables[READER], *exchange.lanes[lane][2], *(each for _, each in exchange.slabs.values())]
        for _ in range(dice.randrange(1, 6)):
            corrupt(dice.choice(segments).bytes[HEADER.row_nbytes :][:4096], dice)
        for identifier in (SENDER, READER):
            try:
                endpoint = exchange.endpoint(identifier)
                _take_over(exchange, endpoint, identifier)
            except SlabwireError:
                continue
        exchange.close()


def _take_over(exchange: Exchange, endpoint: Endpoint, identifier: int) -> None:
    table = exchange.table(identifier)
    inlets = Inlets(routes=1)
    for consumer in endpoint.consumers.values():
        inlets.add(consumer)
    kept = [(left.lane, read_header(table.record(left.row), 0)) for left in table.live() if left.row]
    endpoint.recover(kept)
    unfinished_works(table, inlets, list(endpoint.producers.items()), {})
    for consumer in endpoint.consumers.values():
        if consumer.available():
            touch(_opened(endpoint, consumer.lane))
    endpoint.reap()


def fuzz_slabs(dice: random.Random) -> None:
    segment = Segment.create(SLAB, "a slab", blocks=4, payload_lines=64)
    slab = Slab(1, segment)
    for _ in range(20_000):
        segment.words[slab._generation + dice.randrange(4)] = interesting(dice)
        block, generation, nbytes = dice.choice([0, 3, 4, interesting(dice)]), interesting(dice), interesting(dice)
        try:
            start = slab.check(block, generation, nbytes)
        except SlabwireError:
            continue
        assert generation == slab.generation(block)
        assert 0 <= start <= start + nbytes <= segment.nbytes


def fuzz_bells(dice: random.Random) -> None:
    """Who reads a bell's word rings or does not; no word makes it wait."""
    edge = Edge()
    ringer, bell = edge.ringer(1), edge.bell(1)
    for _ in range(5000):
        edge.bells[1].words[edge.bells[1].placed.word("waiting_for")] = interesting(dice)
        ringer.ring(dice.choice([RECORDS, ROOM, BLOCKS]))
        if dice.random() < 0.1:
            bell.park(RECORDS)
            bell.unpark()
    edge.close()


FUZZERS = [fuzz_messages, fuzz_lanes, fuzz_successors, fuzz_slabs, fuzz_bells]


@pytest.mark.parametrize("fuzz", FUZZERS, ids=lambda each: each.__name__)
def test_no_bytes_harm_their_reader(fuzz: Callable[[random.Random], None]) -> None:
    in_a_child(fuzz, seed=1)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("fuzz", FUZZERS, ids=lambda each: each.__name__)
def test_no_bytes_harm_their_reader_however_many(fuzz: Callable[[random.Random], None]) -> None:
    for seed in range(100, 130):
        in_a_child(fuzz, seed)


# -- segments --------------------------------------------------------------------------------------------------------


def memory(content: bytes, seals: int = SEALS, nbytes: int | None = None) -> int:
    fd = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, len(content) if nbytes is None else nbytes)
    os.pwrite(fd, content, 0)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


def _made(layout: Layout) -> Segment:
    parameters: dict[str, Any] = dict.fromkeys(layout.parameters, 3)
    return Segment.create(layout, "it", **parameters)


def fuzz_segments(dice: random.Random) -> None:
    """Headers, sizes and seals that are anything."""
    made = [(each, _made(each)) for each in all_layouts()]
    opened = 0
    for _ in range(3000):
        layout, segment = dice.choice(made)
        content = bytearray(segment.bytes)
        if dice.random() < 0.8:
            corrupt(memoryview(content)[: dice.choice([8, 16, HEADER.row_nbytes])], dice)
        nbytes = dice.choice([len(content), dice.randrange(len(content)), len(content) + 4096, HEADER.row_nbytes])
        fd = memory(bytes(content[:nbytes]), dice.choice([SEALS, SEALS, SEALS, 0, fcntl.F_SEAL_SEAL]), nbytes)
        try:
            again = Segment.open(fd, layout, writable=dice.random() < 0.5)
        except (LayoutError, OutOfMemory):
            continue
        assert again.nbytes == nbytes
        touch(np.frombuffer(again.bytes.toreadonly(), np.uint8))
        again.close()
        opened += 1
    assert opened > 10


def test_no_header_makes_a_segment_of_what_is_none() -> None:
    in_a_child(fuzz_segments, seed=1)


@pytest.mark.parametrize("layout", [LANE, RETURNS, SLAB, BELL, INFLIGHT], ids=lambda each: each.name)
@pytest.mark.parametrize("writable", [False, True])
def test_descriptors_of_other_things_are_refused(layout: Any, writable: bool) -> None:
    pipe, pair = os.pipe(), socket.socketpair()
    foreign = [
        *pipe,
        pair[0].detach(),
        os.eventfd(0),
        os.open("/dev/zero", os.O_RDWR),
        os.open(__file__, os.O_RDONLY),
        os.open("/proc", os.O_RDONLY),
        memory(b""),
        memory(b"\0" * 4096),
        memory(b"\0" * 4096, seals=0),
    ]
    pair[1].close()
    for fd in foreign:
        with pytest.raises(LayoutError):
            Segment.open(fd, layout, writable=writable)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
