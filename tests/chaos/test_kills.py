"""Two processes over one lane, killed at random moments: no record is lost or torn, every block comes back once."""

from __future__ import annotations

import mmap
import os
import random
import select
import signal
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edge import Edge, array_of, lease_of_record, peek, send_block
from slabwire.shm.bell import BLOCKS, RECORDS, ROOM, Bell

BLOCKS_HELD = 16
NBYTES = 4096
# A successor may still be starting: look again without being rung.
LOOK_AGAIN_MS = 100


def _wait(bell: Bell, ready: Callable[[], object], reasons: int) -> None:
    poll = select.poll()
    poll.register(bell.fd, select.POLLIN)
    while not ready():
        bell.park(reasons)
        if not ready():
            poll.poll(LOOK_AGAIN_MS)
        bell.unpark()


def produce(edge: Edge, target: int) -> None:
    """Sends the numbers up to `target` from where the lane stands; ends when all its blocks are back."""
    producer, bell = edge.producer(), edge.bell(0)
    pool = edge.recovered_pool(producer)

    def has_all() -> bool:
        return producer.free_records() > 0 and producer.can_lend() and has_block()

    def has_block() -> bool:
        producer.reap()
        return pool.blocks_out < BLOCKS_HELD

    while producer.head < target:
        _wait(bell, has_all, ROOM | BLOCKS)
        send_block(producer, pool, producer.head, NBYTES)
    _wait(bell, lambda: producer.reap() == 0 and pool.blocks_out == 0, BLOCKS)


def consume(edge: Edge, target: int, seen: mmap.mmap) -> None:
    """Counts every record that it sees; keeps some arrays for a while, and looks at them again before it lets go."""
    consumer, bell, slab = edge.consumer(), edge.bell(1), edge.slab(1)
    dice = random.Random(consumer.tail)
    rows = set()
    while consumer.available():
        rows.add(peek(consumer).row)
        consumer.cursor += 1
    consumer.cursor = consumer.tail
    consumer.release_all_but(rows)
    kept: deque[tuple[int, Any]] = deque()
    while consumer.tail < target:
        _wait(bell, consumer.available, RECORDS)
        record = peek(consumer)
        array = array_of(lease_of_record(consumer, record, consumer.cursor, slab), NBYTES)
        _require(record.value == consumer.cursor and _is_full_of(array, record.value))
        seen[record.value] = min(255, seen[record.value] + 1)
        consumer.commit()
        if dice.random() < 0.5:
            kept.append((record.value, array[1:]))
        while len(kept) > 5 or (kept and dice.random() < 0.3):
            value, view = kept.popleft()
            _require(_is_full_of(view, value))


def _is_full_of(array: Any, value: int) -> bool:
    return bool(np.all(array == value % 251))


def _require(truth: bool) -> None:
    if not truth:
        raise ValueError("torn, lost or changed")


def _spawn(work: Callable[..., None], *arguments: Any) -> int:
    """A child with mappings of its own: it has the descriptors, the parent's mappings it does not have."""
    pid = os.fork()
    if pid == 0:
        try:
            work(*arguments)
        except BaseException as error:
            os.write(2, f"{work.__name__}: {error!r}\n".encode())
            os._exit(1)
        os._exit(0)
    return pid


def _run(target: int, kills: int, seed: int) -> tuple[Edge, bytes, int]:
    """Runs both ends to the target, killing one now and then; returns what was seen and how many kills hit."""
    edge, seen, dice, hits = Edge(capacity=8, leases=24), mmap.mmap(-1, target), random.Random(seed), 0
    edge.grow(NBYTES, BLOCKS_HELD)
    work: dict[str, tuple[Any, ...]] = {"producer": (produce, edge, target), "consumer": (consume, edge, target, seen)}
    pids = {name: _spawn(*each) for name, each in work.items()}
    try:
        for _ in range(kills):
            time.sleep(dice.uniform(0.001, 0.03))  # a random moment, nothing that is waited for
            name = dice.choice(sorted(pids))
            status = _end(pids.pop(name), signal.SIGKILL)
            assert status in (0, -signal.SIGKILL)
            hits += status != 0
            pids[name] = _spawn(*work[name])
        while pids:
            name, pid = pids.popitem()
            assert (name, _end(pid)) == (name, 0)
    finally:
        for pid in pids.values():
            _end(pid, signal.SIGKILL)
    return edge, seen[:], hits


def _end(pid: int, by: int = 0) -> int:
    """The exit status, negative for a signal, of a child that is ended `by` a signal or (0) ends by itself."""
    os.kill(pid, by)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _check(target: int, kills: int, seed: int) -> None:
    edge, seen, hits = _run(target, kills, seed)
    assert 0 not in seen, f"record {seen.index(0)} was lost"
    assert sum(seen) - target <= hits, "a record was seen twice without a death"
    producer = edge.producer()
    pool = edge.recovered_pool(producer)
    assert (producer.head, producer.waiting, pool.blocks_out) == (target, 0, 0)
    assert len({pool.take(NBYTES).index for _ in range(BLOCKS_HELD)}) == BLOCKS_HELD
    assert hits
    pool.close()
    edge.close()


@pytest.mark.parametrize("seed", range(2))
def test_kills_at_random_moments(seed: int) -> None:
    _check(target=40_000, kills=40, seed=seed)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_many_kills_at_random_moments() -> None:
    for seed in range(100, 150):
        _check(target=100_000, kills=100, seed=seed)
