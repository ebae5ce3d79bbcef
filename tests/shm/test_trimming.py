"""Slabs that were joined for a burst are given back when nobody has needed them for a while."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge import Edge, peek, receive, send_block
from memory_stage import Bursts
from slabwire import Graph
from slabwire.shm.block import Block
from slabwire.shm.pool import Pool
from slabwire.shm.trimming import IDLE_NS, Trimmer
from waiting import wait_until, worker_of

NBYTES = 100_000


class Stage:
    """A pool that has grown to three slabs of one size class for a burst, and what looks at it."""

    def __init__(self) -> None:
        self.edge = Edge(capacity=64, leases=64)
        self.given_back: list[int] = []
        self.producer, self.consumer = self.edge.producer(), self.edge.consumer()
        self.pool: Pool = self.edge.pool(self.producer, shrink=self.given_back.append)
        self.trimmer = Trimmer(self.pool)
        self.burst()

    def burst(self) -> None:
        held = [self.pool.take(NBYTES) for _ in range(30)]
        for each in held:
            self.pool.reclaim(each)

    def looks(self, *seconds: float) -> list[int]:
        """Looks at these times; returns the slabs that are there afterwards."""
        for each in seconds:
            self.trimmer.look(int(each * 1e9))
        return list(self.pool.slabs)

    def close(self) -> None:
        self.pool.close()
        self.edge.close()
        vars(self).clear()


@pytest.fixture
def here() -> Iterator[Stage]:
    made = Stage()
    assert list(made.pool.slabs) == [1, 2, 3]
    yield made
    made.close()


def block_of(pool: Pool, slab: int) -> Block:
    """Takes a block of that slab; all others come back."""
    taken = [pool.take(NBYTES) for _ in range(pool.stats()["free"])]
    kept = next(each for each in taken if each.slab.identifier == slab)
    for each in taken:
        if each is not kept:
            pool.reclaim(each)
    return kept


def test_after_a_burst_one_slab_of_each_size_stays(here: Stage) -> None:
    other = here.pool.take(5000)
    here.pool.reclaim(other)
    held = here.pool.nbytes
    assert here.looks(100, 105, 109.9) == [1, 2, 3, 4]
    assert here.trimmer.due_ns == 110e9
    assert here.looks(110) == [1, 4]
    assert here.given_back == [2, 3]
    stats = here.pool.stats()
    assert (stats["grown"], stats["trimmed"], stats["slabs"]) == (4, 2, 2)
    assert stats["nbytes"] == here.pool.nbytes < held / 2
    assert (here.trimmer.due_ns, here.trimmer.waits_for_blocks) == (0, False), "it sleeps until something happens"
    here.burst()
    assert len(here.pool.slabs) == 4, "it grows again"


def test_what_is_used_now_and_then_stays(here: Stage) -> None:
    for second in range(100, 200, 5):
        here.burst()
        assert here.looks(second) == [1, 2, 3]


def test_a_trickle_keeps_only_the_slab_that_it_uses(here: Stage) -> None:
    """Newest-freed block first: the others lie idle beside it."""
    slabs = set()
    for second in range(100, 130):
        block = here.pool.take(NBYTES)
        slabs.add(block.slab.identifier)
        here.pool.reclaim(block)
        here.looks(second)
    assert slabs <= set(here.pool.slabs)
    assert len(here.pool.slabs) == 1


def test_a_slab_whose_blocks_are_out_stays_and_is_the_one_that_does(here: Stage) -> None:
    block = block_of(here.pool, 3)
    assert here.looks(100, 110) == [3]
    here.pool.reclaim(block)
    assert here.looks(120, 130, 140) == [3]


def test_blocks_that_readers_keep_are_waited_for_without_looking_again_and_again(here: Stage) -> None:
    send_block(here.producer, here.pool, 1, NBYTES)
    kept = receive_all(here)
    while len({each.slab.identifier for each in here.pool.ledger.blocks}) < 2:  # type: ignore[union-attr]
        send_block(here.producer, here.pool, 1, NBYTES)
        kept += receive_all(here)
    assert len(here.looks(100)) == 3
    assert here.trimmer.due_ns == 110e9
    slabs = here.looks(110)
    assert len(slabs) == 2, "both have blocks out"
    assert (here.trimmer.due_ns, here.trimmer.waits_for_blocks) == (0, True)
    kept.clear()  # rings the bell
    here.looks(500)
    assert here.trimmer.due_ns == 510e9
    assert not here.trimmer.waits_for_blocks
    assert len(here.looks(510)) == 1
    assert (here.trimmer.due_ns, here.trimmer.waits_for_blocks) == (0, False)


def receive_all(here: Stage) -> list[Any]:
    arrays = []
    while here.consumer.available():
        arrays.append(receive(here.consumer, here.edge.slab(peek(here.consumer).slab))[1])
    return arrays


def test_a_worker_gives_back_what_a_burst_took_and_sleeps_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(tmp_path / "run"))
    graph = Graph("bursts")
    bursts = graph.add(Bursts, idle_ns=IDLE_NS // 50)
    graph.expose(bursts.burst, bursts.stats)
    with graph.run() as running:
        client = running.client
        kept = list(client.stream("bursts.burst", 40))
        assert len(kept) == 40
        worker = worker_of(running, "bursts")
        held = worker["slab_bytes"]
        assert held > 40 * NBYTES
        del kept  # one after the other: nobody asks the worker for anything from here on
        wait_until(lambda: worker_of(running, "bursts")["slab_bytes"] < held / 4)
        stats = client.call("bursts.stats")
        assert (stats["slabs"], stats["trimmed"]) == (1, stats["grown"] - 1)
        again = list(client.stream("bursts.burst", 40))
        assert [int(each[0]) for each in again] == list(range(40)), "it grows again"
