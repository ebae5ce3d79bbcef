"""Leases: what a handler keeps does not change, wherever and whenever it lets go of it."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge import LANE_NUMBER, Edge, array_of, lease_of_record, peek, receive, send_block
from slabwire.runtime.message.lending import holder_of, offset_in
from slabwire.shm.bell import BLOCKS, Ringer
from slabwire.shm.errors import StaleReference
from slabwire.shm.lane import Source
from slabwire.shm.lease import Lease


@pytest.fixture
def edge() -> Iterator[Edge]:
    edge = Edge(capacity=64, leases=128)
    yield edge
    edge.close()


def test_what_is_kept_does_not_change_while_the_producer_writes_on(edge: Edge) -> None:
    producer, consumer = edge.producer(), edge.consumer()
    pool = edge.pool(producer)
    kept: list[tuple[int, Any]] = []
    for value in range(300):
        send_block(producer, pool, value)
        consumer.available()
        record, array = receive(consumer, edge.slab(peek(consumer).slab))
        if value % 37 == 0:
            kept.append((record.value, array[10:200:3].reshape(-1, 1)))
        del array
    gc.collect()
    assert all(set(view.reshape(-1)) == {value % 251} for value, view in kept)
    assert pool.blocks_out >= len(kept)
    kept.clear()
    del record
    producer.reap()
    assert pool.blocks_out == 0


VIEWS: list[Callable[[Any], Any]] = [
    lambda a: a[5:],
    lambda a: a.reshape(10, 100)[:, ::-1].T,
    lambda a: a.view(np.uint32),
    lambda a: memoryview(a),
    lambda a: np.frombuffer(a, np.uint16),
    lambda a: a.flat,
    lambda a: [a[0:1]],
    lambda a: np.asarray(memoryview(a)[3:]),
    lambda a: a.view(np.ma.MaskedArray),
]


@pytest.mark.parametrize("number", range(len(VIEWS)))
def test_any_view_holds_the_block_and_its_death_gives_it_back(edge: Edge, number: int) -> None:
    producer, consumer = edge.producer(), edge.consumer()
    pool = edge.pool(producer)
    send_block(producer, pool, 5)
    consumer.available()
    array = receive(consumer, edge.slab(1))[1]
    view = VIEWS[number](array)
    del array
    gc.collect()
    producer.reap()
    assert pool.blocks_out == 1
    del view
    gc.collect()
    producer.reap()
    assert pool.blocks_out == 0


@pytest.mark.parametrize("own", [False, True], ids=["of another", "of its own"])
def test_a_lease_holds_its_block_whosever_slab_it_is(edge: Edge, own: bool) -> None:
    """Blocks come back to their owner as leases, too: over memory that it could write to."""
    producer, consumer = edge.producer(), edge.consumer()
    pool = edge.pool(producer)
    send_block(producer, pool, 5)
    consumer.available()
    array = receive(consumer, edge.slab(1, writable=own))[1]
    view = array[3:]
    with pytest.raises(ValueError, match="WRITEABLE"):
        array.flags.writeable = True
    del array
    gc.collect()
    producer.reap()
    assert pool.blocks_out == 1
    del view
    producer.reap()
    assert pool.blocks_out == 0


def test_a_received_array_can_never_be_written(edge: Edge) -> None:
    producer, consumer = edge.producer(), edge.consumer()
    send_block(producer, edge.pool(producer), 5)
    consumer.available()
    array: Any = receive(consumer, edge.slab(1))[1]
    for attempt in (
        lambda: array.__setitem__(0, 1),
        lambda: array.setflags(write=True),
        lambda: np.add(array, 1, out=array),
        lambda: memoryview(array).__setitem__(0, 1),
    ):
        with pytest.raises((ValueError, TypeError)):
            attempt()


def test_a_loan_that_was_frozen_stays_frozen(edge: Edge) -> None:
    loan = edge.pool().loan((4,), np.int32)
    loan.flags.writeable = False
    with pytest.raises(ValueError, match="cannot set WRITEABLE"):
        loan.flags.writeable = True


def test_a_view_holds_the_mapping_when_everything_else_is_gone(edge: Edge) -> None:
    producer, consumer = edge.producer(), edge.consumer()
    send_block(producer, edge.pool(producer), 5)
    consumer.available()
    slab = edge.slab(1)
    consumer.producer = Ringer(consumer.producer.segment, os.dup(edge.doorbells[0]))
    array = receive(consumer, slab)[1]
    slab.segment.close()
    consumer.segment.close()
    consumer.producer.close()
    del slab, consumer
    gc.collect()
    assert set(array) == {5}
    del array
    producer.reap()
    assert not producer.holders


def test_the_last_view_may_die_in_another_thread_or_in_the_collector(edge: Edge) -> None:
    producer, consumer = edge.producer(), edge.consumer()
    pool, slab = edge.pool(producer), None
    arrays: list[Any] = []
    for value in range(60):
        send_block(producer, pool, value)
        slab = slab or edge.slab(1)
        consumer.available()
        ring: list[Any] = [receive(consumer, slab)[1]]
        ring.append(ring)  # only the cycle collector ends these
        arrays.append(ring)
    ring = []

    def let_go() -> None:
        arrays.clear()
        gc.collect()

    worker = threading.Thread(target=let_go)
    worker.start()
    worker.join()
    producer.reap()
    assert pool.blocks_out == 0


def test_the_owner_is_rung_when_it_waits_for_a_block(edge: Edge) -> None:
    producer, consumer, bell = edge.producer(), edge.consumer(), edge.bell(0)
    send_block(producer, edge.pool(producer), 5)
    consumer.available()
    array = receive(consumer, edge.slab(1))[1]
    bell.park(BLOCKS)
    del array
    bell.unpark()
    assert bell.wakes == 1
    bell.close()


def test_a_stale_reference_ends_no_later_loan_of_the_row(edge: Edge) -> None:
    """The error's traceback holds the half-made lease; when it goes, nothing may be released by it."""
    producer, consumer = edge.producer(), edge.consumer()
    send_block(producer, edge.pool(producer), 5)
    consumer.available()
    record = peek(consumer)._replace(generation=99)
    with pytest.raises(StaleReference) as caught:
        lease_of_record(consumer, record, consumer.cursor, edge.slab(1))
    del caught
    gc.collect()
    assert producer.reap() == 0


def test_lease_of_knows_received_arrays_and_no_others(edge: Edge) -> None:
    producer, consumer = edge.producer(), edge.consumer()
    send_block(producer, edge.pool(producer), 5)
    consumer.available()
    record = peek(consumer)
    lease = Lease(consumer, Source(LANE_NUMBER, record.row, 1), edge.slab(1), record.block, record.generation, 1)
    assert holder_of(array_of(lease)[3:, None]) is lease
    assert holder_of(array_of(lease).copy()) is None
    assert holder_of(np.zeros(3)) is None


@pytest.mark.parametrize(
    "view",
    [
        lambda each: each,
        lambda each: each[...],
        lambda each: each[1:],
        lambda each: each[::-1],
        lambda each: each[:, 1:],
        lambda each: each.T,
        lambda each: each.imag,
        lambda each: each.view(np.float32)[:, 1::2],
        lambda each: each[2:3][0],
    ],
)
@pytest.mark.parametrize("strides", [None, (8, 24), (48, 16)])
def test_where_views_of_received_arrays_begin(edge: Edge, view: Any, strides: tuple[int, ...] | None) -> None:
    producer, consumer = edge.producer(), edge.consumer()
    send_block(producer, edge.pool(producer), 5)
    consumer.available()
    record = peek(consumer)
    lease = Lease(consumer, Source(LANE_NUMBER, record.row, 1), edge.slab(1), record.block, record.generation, 1)
    try:
        array = view(lease.array(64, (3, 3), np.dtype(np.complex64), strides))
    except ValueError:
        pytest.skip("numpy has no such view of such an array")
    assert offset_in(array, lease) == array.__array_interface__["data"][0] - lease.address()


def test_a_forked_child_neither_ends_leases_nor_dies_of_them(edge: Edge) -> None:
    producer, consumer = edge.producer(), edge.consumer()
    pool = edge.pool(producer)
    send_block(producer, pool, 5)
    consumer.available()
    held = [receive(consumer, edge.slab(1))[1], pool.loan((3,), np.int8)]
    pid = os.fork()
    if pid == 0:
        held.clear()
        gc.collect()
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert producer.reap() == 0
    assert set(held[0]) == {5}


AT_EXIT = """
import sys, threading, gc
sys.path.insert(0, sys.argv[1])
from edge import Edge, receive, send_block
edge = Edge()
producer, consumer = edge.producer(), edge.consumer()
pool = edge.pool(producer)
bell = edge.bell(0)
bell.park(7)
def get():
    send_block(producer, pool, 5)
    consumer.available()
    return receive(consumer, edge.slab(1))[1]
kept = get()                                    # in a module's globals
sys.kept = get()                                # in a module that goes last
loan = sys.loan = pool.loan((3,), "f4")
ring = [get()]; ring.append(ring)               # in a cycle
class Late:
    def __init__(self, array): self.array = array
    def __del__(self): del self.array
late = Late(get())
threading.Thread(target=lambda array=kept: threading.Event().wait(), daemon=True).start()
"""


def test_the_interpreter_may_end_while_arrays_live() -> None:
    command = [sys.executable, "-c", AT_EXIT, str(Path(__file__).parents[1] / "helpers")]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
