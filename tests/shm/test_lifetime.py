"""What is kept of a message stays as it was, in whatever form it is kept, while its owner writes everything again."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from edge import Edge, lease_of_record, peek, receive, send_block
from slabwire.shm.consumer import Consumer
from slabwire.shm.pool import Pool
from slabwire.shm.producer import Producer

NBYTES = 1000
FILL, OTHER = 5, 0xA7
BLOCKS = 8


class Stage:
    """One array that was received, and its owner."""

    def __init__(self) -> None:
        self.edge = Edge(capacity=8, leases=16)
        self.edge.grow(2048, BLOCKS)
        self.producer: Producer = self.edge.producer()
        self.pool: Pool = self.edge.recovered_pool(self.producer)
        self.consumer: Consumer = self.edge.consumer()
        self.slab = self.edge.slab(1)

    def receive(self) -> Any:
        send_block(self.producer, self.pool, FILL, NBYTES)
        assert self.consumer.available()
        return receive(self.consumer, self.slab)[1]

    def write_everything_again(self) -> int:
        """Loans every block that is free, twice over, and fills it; returns how many there are."""
        for _ in range(2):
            gc.collect()
            self.producer.reap()
            self.pool.collect()
            loans = [self.pool.loan((NBYTES,), np.uint8) for _ in range(self.pool.stats()["free"])]
            for each in loans:
                each[:] = OTHER
            count = len(loans)
            del loans, each
        self.pool.collect()
        return count

    def close(self) -> None:
        self.pool.close()
        self.edge.close()
        vars(self).clear()


@pytest.fixture
def stage() -> Iterator[Stage]:
    made = Stage()
    yield made
    made.close()


def _raises(array: Any) -> Any:
    def inner(kept: Any) -> None:
        raise LookupError("its frame holds an array")

    try:
        inner(array[3:])
    except LookupError as error:
        return error


def _running(array: Any) -> Any:
    def generate(kept: Any) -> Iterator[int]:
        yield 1
        yield int(kept[0])

    items = generate(array[9:])
    next(items)
    return items


def _in_cycle(array: Any) -> Any:
    ring: list[Any] = [array]
    ring.append(ring)
    return ring


class Holds:
    def __init__(self, array: Any) -> None:
        self.array = array


# How an array is kept, and how its bytes are read from that.
Form = tuple[Callable[[Any], Any], Callable[[Any], bytes]]


def _bytes_of(array: Any) -> bytes:
    return bytes(array.tobytes())


FORMS: dict[str, Form] = {
    "itself": (lambda a: a, _bytes_of),
    "a slice": (lambda a: a[100:900:7], _bytes_of),
    "reshaped": (lambda a: a.reshape(10, 100), _bytes_of),
    "transposed": (lambda a: a.reshape(10, 100).T, _bytes_of),
    "asarray": (np.asarray, _bytes_of),
    "ascontiguousarray": (np.ascontiguousarray, _bytes_of),
    "as another dtype": (lambda a: a.view(np.float64), _bytes_of),
    "broadcast": (lambda a: np.broadcast_to(a, (3, NBYTES)), _bytes_of),
    "strided by hand": (lambda a: np.lib.stride_tricks.sliding_window_view(a, 8), _bytes_of),
    "matrix": (lambda a: a.view(np.matrix), _bytes_of),
    "by DLPack": (np.from_dlpack, _bytes_of),
    "a part by DLPack": (lambda a: np.from_dlpack(a[7:])[1:], _bytes_of),
    "a capsule of DLPack": (lambda a: [a.__dlpack__(max_version=(1, 0)), a], lambda kept: _bytes_of(kept[1])),
    "memoryview": (memoryview, bytes),
    "a part of a memoryview": (lambda a: memoryview(a)[5:50], bytes),
    "frombuffer": (lambda a: np.frombuffer(a, np.int16), _bytes_of),
    "an exception's frame": (_raises, lambda error: _bytes_of(error.__traceback__.tb_next.tb_frame.f_locals["kept"])),
    "a generator's frame": (_running, lambda items: _bytes_of(items.gi_frame.f_locals["kept"])),
    "a closure": (lambda a: lambda: a[1:], lambda closure: _bytes_of(closure())),
    "a cycle": (_in_cycle, lambda ring: _bytes_of(ring[0])),
    "an object": (Holds, lambda holder: _bytes_of(holder.array)),
    "an iterator": (lambda a: a.flat, lambda flat: _bytes_of(flat.base)),
}


@pytest.mark.parametrize("name", FORMS)
def test_what_is_kept_stays_as_it_was(stage: Stage, name: str) -> None:
    keep, look = FORMS[name]
    kept = keep(stage.receive())
    before = look(kept)
    assert stage.write_everything_again() == BLOCKS - 1
    assert look(kept) == before
    assert set(before) == {FILL}
    del kept
    assert stage.write_everything_again() == BLOCKS


def test_what_a_thread_keeps_stays_as_it_was(stage: Stage) -> None:
    looks, found = threading.Event(), []

    def hold(array: Any) -> None:
        view = array[10:]
        del array
        looks.wait()
        found.append(_bytes_of(view))

    thread = threading.Thread(target=hold, args=(stage.receive(),))
    thread.start()
    assert stage.write_everything_again() == BLOCKS - 1
    looks.set()
    thread.join()
    assert found == [bytes([FILL]) * (NBYTES - 10)]
    del thread
    assert stage.write_everything_again() == BLOCKS


def test_the_last_error_of_the_interpreter_keeps_what_it_holds(stage: Stage) -> None:
    """As in an interactive session, where the last traceback can be looked at."""
    sys.last_value = _raises(stage.receive())
    assert stage.write_everything_again() == BLOCKS - 1
    del sys.last_value
    assert stage.write_everything_again() == BLOCKS


def test_several_tensors_of_one_block_hold_it_together(stage: Stage) -> None:
    send_block(stage.producer, stage.pool, FILL, NBYTES)
    assert stage.consumer.available()
    lease: Any = lease_of_record(stage.consumer, peek(stage.consumer), stage.consumer.cursor, stage.slab)
    parts = [lease.array(at, (100,), np.dtype(np.uint8), None) for at in (0, 128, 256)]
    del lease
    stage.consumer.commit()
    while parts:
        assert stage.write_everything_again() == BLOCKS - 1
        assert set(parts.pop().tolist()) == {FILL}
    assert stage.write_everything_again() == BLOCKS


# -- DLPack and the buffer protocol ----------------------------------------------------------------------------------

NUMBERS = ["?", "b", "B", "h", "H", "i", "I", "q", "Q", "e", "f", "d", "F", "D"]


@pytest.mark.parametrize("letter", NUMBERS)
def test_received_numbers_go_by_dlpack_and_by_buffer(stage: Stage, letter: str) -> None:
    array = stage.receive()
    seen = array.base.lease.array(0, (3, 4), np.dtype(letter), None)
    for exported in (np.from_dlpack(seen), np.asarray(memoryview(seen))):
        assert (exported.dtype, exported.shape, exported.flags.writeable) == (seen.dtype, seen.shape, False)
        assert exported.tobytes() == seen.tobytes()
        assert exported.ctypes.data == seen.ctypes.data, "nothing was copied"


def test_who_cannot_say_that_memory_is_read_only_does_not_get_it(stage: Stage) -> None:
    """DLPack before 1.0 has no word for it."""
    with pytest.raises(BufferError, match="readonly"):
        stage.receive().__dlpack__()


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.int4], ids=str)
def test_dtypes_that_neither_knows_are_refused_by_name(stage: Stage, dtype: Any) -> None:
    array = stage.receive()
    seen = array.base.lease.array(0, (8,), np.dtype(dtype), None)
    with pytest.raises(BufferError, match="DLPack only supports"):
        np.from_dlpack(seen)
    with pytest.raises(ValueError, match="cannot include dtype"):
        memoryview(seen)
    assert np.asarray(memoryview(seen.view(np.uint8))).tobytes() == seen.tobytes(), "as bytes it goes"


def test_a_loan_goes_by_dlpack_and_may_be_written_by_it(stage: Stage) -> None:
    loan = stage.pool.loan((10,), np.float32)
    np.from_dlpack(loan)[:] = 2.5
    assert set(loan.tolist()) == {2.5}
    view = np.from_dlpack(loan)
    del loan
    assert stage.write_everything_again() == BLOCKS - 1
    assert set(view.tolist()) == {2.5}


def test_an_array_that_is_kept_outlives_its_lane(stage: Stage) -> None:
    array = stage.receive()
    stage.consumer.segment.close()
    stage.slab.segment.close()
    assert stage.write_everything_again() == BLOCKS - 1
    assert set(array.tolist()) == {FILL}
    del array
    assert stage.write_everything_again() == BLOCKS
