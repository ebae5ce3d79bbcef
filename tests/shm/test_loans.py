"""Several tensors in one block: loaned together, sent in one message, back once."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from edge import Edge
from memory_stage import Hogs, Several
from slabwire import Graph, OutOfMemory
from slabwire.runtime.message.lending import holder_of
from slabwire.runtime.message.payload import Payload
from slabwire.shm.block import loaned_block
from slabwire.shm.pool import Pool


@pytest.fixture
def pool() -> Iterator[Pool]:
    edge = Edge()
    pool = edge.pool()
    yield pool
    pool.close()
    edge.close()


def test_tensors_loaned_together_travel_by_reference_and_come_back_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(tmp_path / "run"))
    graph = Graph("several")
    several = graph.add(Several)
    graph.expose(several.detect, several.writeable, several.out)
    with graph.run() as running:
        client = running.client
        for n in (7, 1000, 3):
            got: Any = client.call("several.detect", n)
            boxes, (half, scores), none = got["boxes"], got["scores"], got["none"]
            leases: set[Any] = {holder_of(each) for each in (boxes, half, scores)}
            assert len(leases) == 1
            (lease,) = leases
            assert lease is not None
            assert [lease.slab.identifier, lease.block] == got["block"], "nothing was copied"
            assert np.array_equal(boxes, np.arange(4 * n, dtype=np.float32).reshape(n, 4))
            assert (scores.dtype, scores.shape, none.shape) == (ml_dtypes.bfloat16, (n,), (0, 3))
            assert set(scores.astype(float)) == {0.5}
            if n == 7:
                assert client.call("several.writeable") == [False, False]
            assert client.call("several.out") == 1
            del boxes, half, none, leases, lease, got
            assert client.call("several.out") == 1, "the last of them holds the block"
            del scores
            gc.collect()
            if n != 7:  # which the actor keeps until the next one
                assert client.call("several.out") == 0


def test_who_has_no_memory_left_can_still_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the text of the error is too long for a record, and there is no block for it."""
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(tmp_path / "run"))
    graph = Graph("hogs")
    hogs = graph.add(Hogs, memory_bytes=1 << 20)
    graph.expose(hogs.hog, hogs.count)
    with graph.run() as running:
        for _ in range(2):
            with pytest.raises(OutOfMemory, match=r"a block of 2048 bytes: .*\.\.\.$"):
                running.client.call("hogs.hog")
        assert running.client.call("hogs.count") > 100, "it lives on"
        assert "memory_bytes= of graph.add" in (tmp_path / "run/hogs/logs/hogs.log").read_text(), "all of it is there"


def test_all_arrays_of_a_message_are_read_only_once_it_is_sent(pool: Pool) -> None:
    first, second = pool.loan_many([((500,), np.int64), ((500,), np.int8)])
    part = first[:100]
    payload = Payload({"part": part, "second": second}, pool)
    assert [each.flags.writeable for each in (first, part, second)] == [False, False, False]
    payload.close()


def test_a_block_of_several_comes_back_with_the_last_of_them(pool: Pool) -> None:
    arrays = pool.loan_many([((100,), np.float32)] * 4)
    assert len({loaned_block(each) for each in arrays}) == 1
    assert all(each.ctypes.data % 128 == 0 for each in arrays)
    for index, each in enumerate(arrays):
        each[:] = index
    assert [set(each.tolist()) for each in arrays] == [{0.0}, {1.0}, {2.0}, {3.0}]
    del each
    while arrays:
        pool.collect()
        assert pool.blocks_out == 1
        arrays.pop()
    pool.collect()
    assert pool.blocks_out == 0


@pytest.mark.parametrize("shape", [(-1,), (2, -3), (1 << 62, 0, 1 << 62)])
def test_a_shape_that_cannot_be_costs_no_block(pool: Pool, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"negative|too (big|large)|array size"):
        pool.loan_many([((10,), np.int8), (shape, np.int8), ((10,), np.int8)])
    gc.collect()
    pool.collect()
    assert pool.blocks_out == 0


def test_no_tensors_take_no_block(pool: Pool) -> None:
    assert pool.loan_many([]) == []
    assert pool.blocks_out == 0
