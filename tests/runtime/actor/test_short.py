"""Messages without a Payload: whose block they take, and what is left when something comes in between."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from edge import Edge
from lanes import lanes_of
from slabwire import Graph
from slabwire.runtime.cell.inlets import Inlets
from slabwire.runtime.message import fast_path
from slabwire.runtime.message.encoding import Encoded, decode, encode
from slabwire.runtime.message.fast_path import encode_and_publish
from slabwire.runtime.message.header import Kind, read_header, write_record
from slabwire.shm.errors import CorruptLane
from slabwire.shm.pool import Pool
from slabwire.shm.producer import Producer
from stage import Echo

HEAD = (0,) * 13


@pytest.fixture
def edge() -> Iterator[Edge]:
    edge = Edge(capacity=4, leases=4)
    yield edge
    edge.close()


def send(producer: Producer, pool: Pool, value: Any) -> bool:
    return encode_and_publish(value, pool, producer, Kind.DATA, 0, HEAD)


def test_the_block_of_the_last_message_serves_the_next(edge: Edge) -> None:
    producer, consumer = edge.producer(), edge.consumer()
    pool = Pool(edge.grow, producer.reap, 1 << 24)  # type: ignore[arg-type]
    blocks = set()
    for value in range(50):
        assert send(producer, pool, np.full(1000, value, np.int32))
        assert consumer.available()
        header = read_header(consumer.segment.bytes, consumer.offset())
        blocks.add((header.slab, header.block))
        consumer.release(header.row, consumer.cursor + 1)
        consumer.commit()
    assert len(blocks) == 1
    assert (pool.blocks_out, len(producer.holders)) == (1, 1)
    producer.reap()
    assert (pool.blocks_out, len(producer.holders)) == (0, 0)


def test_a_block_that_is_still_read_serves_nobody_else(edge: Edge) -> None:
    producer, consumer = edge.producer(), edge.consumer()
    pool = Pool(edge.grow, producer.reap, 1 << 24)  # type: ignore[arg-type]
    for value in range(3):
        assert send(producer, pool, np.full(1000, value, np.int32))
    assert consumer.available() == 3
    headers = [read_header(consumer.segment.bytes, consumer.offset_of(each)) for each in range(3)]
    assert len({(each.slab, each.block) for each in headers}) == 3
    consumer.release(headers[0].row, 1)  # an older one: the newest is what is lent again
    assert send(producer, pool, np.full(1000, 9, np.int32))
    assert pool.blocks_out == 3


def test_an_exception_in_between_leaves_nothing_lent(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while the payload is copied, or the record written: the next message is as if nothing had been."""
    producer, consumer = edge.producer(), edge.consumer()
    pool = Pool(edge.grow, producer.reap, 1 << 24)  # type: ignore[arg-type]

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    for name in ("copy_in", "write_record"):
        for _ in range(20):
            with monkeypatch.context() as patched:
                patched.setattr(fast_path, name, interrupted)
                with pytest.raises(KeyboardInterrupt):
                    send(producer, pool, np.zeros(1000))
        assert (pool.blocks_out, len(producer.holders), producer.head) == (0, 0, 0)
        assert len(producer._free_rows) == producer.leases
    assert send(producer, pool, np.arange(1000.0))
    assert consumer.available() == 1
    assert edge.producer().unfinished[0].generation == 1


@pytest.mark.parametrize("value", ["x" * 200, b"x" * (1 << 20), {"a": 1}, [1], np.arange(3).view(np.ma.MaskedArray)])
def test_what_the_fast_path_does_not_encode_needs_a_payload(value: Any) -> None:
    assert encode(value, is_fields=False) is None


@pytest.mark.parametrize("fields", [{}, {"n": 1}, {"text": "a", "none": None, "x": 0.5, "b": b"1", "yes": True}])
def test_fields_of_numbers_and_texts_take_the_fast_path(fields: dict[str, Any]) -> None:
    packed = encode(fields, is_fields=True)
    assert packed is not None
    header = read_header_of(packed)
    assert decode(header, None) == fields


def read_header_of(packed: Encoded) -> Any:
    record = bytearray(256)
    where = 0, 0, 0, 0, packed.at
    write_record(record, 0, Kind.DATA, packed.flags, *HEAD, len(packed.metadata), *where, packed.metadata)
    return read_header(memoryview(record), 0)


def test_a_turn_without_lanes_is_none() -> None:
    """A handler may hear that the last of them is gone."""
    inlets = Inlets(routes=1)
    inlets.turn()
    assert not inlets.lanes


def test_a_client_that_names_no_route_of_the_graph_is_corrupt(edge: Edge) -> None:
    producer, consumer = edge.producer(), edge.consumer()
    inlets = Inlets(routes=2)
    inlets.add(consumer, client=70_000)
    for route in (1, 2):
        head = (0, 0, 0, 70_000, route, 1, *(0,) * 7)
        assert encode_and_publish(1, edge.pool(producer), producer, Kind.DATA, 0, head)
    assert consumer.available() == 2
    assert inlets.header(consumer, 0).route == 1
    with pytest.raises(CorruptLane):
        inlets.header(consumer, 1)


def test_an_own_block_that_comes_back_cannot_be_made_writable(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(tmp_path / "run"))
    graph = Graph("echoes")
    graph.expose(graph.add(Echo).echo)
    with graph.run() as running:
        back = running.client.call("echo.echo", np.zeros(5000))
        with pytest.raises(ValueError, match="WRITEABLE"):
            back.flags.writeable = True


def test_an_interrupted_call_leaves_its_number_to_nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """Else the next call would get the answer of the one before."""
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(tmp_path / "run"))
    graph = Graph("interrupted")
    graph.expose(graph.add(Echo).echo)
    with graph.run() as running:
        client = running.client
        assert client.call("echo.echo", 1) == 1
        entry = next(iter(lanes_of(client).caller._entries.values()))
        publish = entry.publish

        def publish_and_be_interrupted(records: int = 1) -> None:
            publish(records)
            raise KeyboardInterrupt

        entry.publish = publish_and_be_interrupted  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            client.call("echo.echo", 2)
        entry.publish = publish  # type: ignore[method-assign]
        assert [client.call("echo.echo", each) for each in (3, 4)] == [3, 4]
