"""Streams that callers send: what becomes of them when somebody dies, breaks the rules, or cannot have one."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest

import slabwire
from lanes import lanes_of
from sent_stage import Adder, graph_of_streams
from slabwire import Actor, Graph
from slabwire.runtime.clients.control import Control
from slabwire.runtime.control.verbs import Restart
from slabwire.runtime.message.header import Kind
from slabwire.runtime.message.payload import Payload
from slabwire.runtime.spec import graph_from_plain
from waiting import wait_until, worker_of

# -- deaths ------------------------------------------------------------------------------------------------------------


class Mortal(Actor):
    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    async def sum(self, numbers: AsyncIterator[int]) -> list[int]:
        with (self.folder / "begun").open("a") as notes:
            notes.write(f"{os.getpid()}\n")
        total = 0
        try:
            async for each in numbers:
                total += each
                (self.folder / "read").touch()
        except asyncio.CancelledError:
            (self.folder / "cancelled").touch()
            raise
        return [total, self.context.attempt]


@pytest.fixture
def mortal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(tmp_path / "run"))
    graph = Graph("mortal")
    node = graph.add(Mortal, folder=str(tmp_path))
    graph.expose(node.sum)
    with graph.run() as running:
        yield running


def begun(folder: Path) -> list[str]:
    path = folder / "begun"
    return path.read_text().split() if path.exists() else []


def kill(running: Any) -> None:
    os.kill(worker_of(running, "mortal")["pid"], signal.SIGKILL)


@pytest.mark.parametrize("lie_in_the_lane", [False, True])
def test_a_handler_that_was_killed_before_any_item_was_taken_begins_again(
    mortal: Any, tmp_path: Path, lie_in_the_lane: bool
) -> None:
    may_go, pulled = threading.Event(), threading.Event()

    def numbers() -> Iterator[int]:
        may_go.wait()
        yield from range(32)
        pulled.set()
        yield from range(32, 1000)

    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(mortal.client.call, "mortal.sum", numbers())
        wait_until(lambda: begun(tmp_path))
        pid = worker_of(mortal, "mortal")["pid"]
        if lie_in_the_lane:
            os.kill(pid, signal.SIGSTOP)
            may_go.set()
            assert pulled.wait(10)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: len(begun(tmp_path)) == 2)
        may_go.set()
        assert call.result() == [sum(range(1000)), 2]


def test_a_handler_that_was_killed_behind_its_first_item_is_interrupted(mortal: Any, tmp_path: Path) -> None:
    may_go = threading.Event()

    def numbers() -> Iterator[int]:
        yield 1
        may_go.wait()
        yield from range(1000)

    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(mortal.client.call, "mortal.sum", numbers())
        wait_until(lambda: (tmp_path / "read").exists())
        kill(mortal)
        wait_until(lambda: worker_of(mortal, "mortal")["restarts"] == 1)
        may_go.set()
        with pytest.raises(slabwire.Interrupted, match="mortal died in the middle of the stream that it was sent"):
            call.result()
    assert len(begun(tmp_path)) == 1
    assert mortal.client.call("mortal.sum", range(1000)) == [sum(range(1000)), 1]


def test_a_worker_that_is_replaced_reads_to_the_end_what_it_has_begun(mortal: Any, tmp_path: Path) -> None:
    may_go = threading.Event()

    def numbers() -> Iterator[int]:
        yield 1
        may_go.wait()
        yield from range(1000)

    def restart() -> Any:
        with Control(mortal.name) as control:
            return control.request(Restart("mortal", 60.0, False))

    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(mortal.client.call, "mortal.sum", numbers())
        wait_until(lambda: (tmp_path / "read").exists())
        before = worker_of(mortal, "mortal")["pid"]
        restart()
        time.sleep(0.2)  # the worker takes no more requests by then; nothing shows that from outside
        may_go.set()
        assert call.result() == [1 + sum(range(1000)), 1]
        wait_until(lambda: worker_of(mortal, "mortal")["pid"] != before)
        assert mortal.client.call("mortal.sum", range(1000)) == [sum(range(1000)), 1]


def test_the_handler_of_a_client_that_was_killed_is_cancelled(mortal: Any, tmp_path: Path) -> None:
    code = (
        "import itertools, slabwire\n"
        f"slabwire.connect({mortal.name!r}).call('mortal.sum', itertools.repeat(1), timeout_s=None)"
    )
    with subprocess.Popen([sys.executable, "-c", code]) as client:
        wait_until(lambda: (tmp_path / "read").exists())
        client.kill()
    assert wait_until(lambda: (tmp_path / "cancelled").exists())
    assert mortal.client.call("mortal.sum", [1]) == [1, 1]


# -- clients that break the rules --------------------------------------------------------------------------------------


class _Raw:
    """A client of one call that sends a stream, which writes its records itself."""

    def __init__(self, client: slabwire.Client, port: str) -> None:
        self.caller = lanes_of(client).caller
        self.pool = lanes_of(client).endpoint.pool
        self.pending: Any = self.caller.begin(self.caller.checked(port, ([],), {}, stream=False))
        self.items = self.caller.streams.lanes["adder"]

    def write(self, kind: Kind, value: Any, *, request: int = 0, lane: Any = None) -> None:
        head = list(self.caller._head(self.pending, 0))
        head[5] = request or head[5]
        lane = lane or self.items
        wait_until(lambda: lane.free_records())
        Payload(value, self.pool).publish(lane, kind, 0, tuple(head))

    def error(self) -> Any:
        wait_until(lambda: self.caller.pump() or self.pending.arrived)
        return self.pending.arrived[0][1]


@pytest.fixture
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The graph in processes of its own, which work whatever this one waits for."""
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(tmp_path))
    with graph_of_streams().run(drain_timeout_s=0.1) as running:
        yield running


@pytest.fixture
def client(apart: Any) -> Iterator[slabwire.Client]:
    with slabwire.connect(apart.name) as client:
        yield client


def test_items_of_unknown_requests_are_let_go(client: slabwire.Client) -> None:
    raw = _Raw(client, "adder.never_reads")
    for each in range(1000):
        raw.write(Kind.ITEM, np.full(1000, each), request=12345 + each)
        raw.items.reap()
    raw.write(Kind.END, None, request=7)
    raw.write(Kind.ERROR, ["x", "y"], request=8)
    raw.caller.cancel(raw.pending)
    wait_until(lambda: raw.items.reap() is not None and not raw.items.holders and not raw.items.waiting)
    assert client.call("adder.sum", range(100)) == sum(range(100))


def test_a_client_that_sends_too_far_ahead_ends_its_own_call_alone(apart: Any, client: slabwire.Client) -> None:
    raw = _Raw(client, "adder.caught")
    other = _Raw(client, "adder.never_reads")
    for each in range(1000):
        other.write(Kind.ITEM, each)
    raw.write(Kind.ITEM, 1)
    raw.write(Kind.ERROR, {"no": "error"})
    assert raw.error() == "caught"
    assert apart.client.call("adder.over")[0].startswith("MessageError: a stream ends with an error that has no code")
    raw = _Raw(client, "adder.sum")
    wait_until(lambda: raw.items.items_read(raw.pending.request))
    other.caller.cancel(other.pending)
    for each in range(1000):
        raw.write(Kind.ITEM, "no number" if each == 10 else 1)
    assert "expected int, got str" in str(raw.error())


def test_a_request_that_comes_twice_has_one_stream(client: slabwire.Client) -> None:
    raw = _Raw(client, "adder.sum")
    raw.write(Kind.ITEM, 1)
    raw.caller._write(raw.pending, Kind.DATA, Payload({}, raw.pool, is_fields=True), 0)
    assert "sends a stream already" in str(raw.error())


@pytest.mark.parametrize("where", ["items", "call"])
def test_a_client_that_writes_other_kinds_of_records_is_turned_out(apart: Any, where: str) -> None:
    client = slabwire.connect(apart.name)
    raw = _Raw(client, "adder.sum")
    raw.write(Kind.DATA if where == "items" else Kind.ITEM, 1, lane=None if where == "items" else raw.pending.entry)
    assert apart.client.call("adder.sum", range(200)) == sum(range(200))
    wait_until(lambda: raw.caller.pump() or not client._connection.is_there())
    assert apart.client.call("adder.sum", range(200)) == sum(range(200))
    client.close()


# -- where no stream can be sent ---------------------------------------------------------------------------------------


def test_what_cannot_be_meant_is_refused_where_it_is_written() -> None:
    class Both(Actor):
        async def handle(self, one: AsyncIterator[int], two: AsyncIterable[int]) -> int:
            return 1

    class Blocks(Actor):
        def handle(self, items: AsyncIterator[int]) -> int:
            return 1

    class Yields(Actor):
        def handle(self, items: AsyncIterator[int]) -> Iterator[int]:
            yield 1

    class Optional(Actor):
        async def handle(self, items: AsyncIterator[int] | None = None) -> int:
            return 1

    class Default(Actor):
        async def handle(self, items: AsyncIterator[int] = ...) -> int:  # type: ignore[assignment]
            return 1

    class Again(Actor):
        @slabwire.resumable
        async def handle(self, items: AsyncIterator[int], sent: int = 0) -> AsyncIterator[int]:
            yield 1

    for code, why in (
        (Both, "handle: 'one' and 'two' are streams, and a caller sends one stream only"),
        (Blocks, "handle: 'items' is a stream that the caller sends, and a plain handler would block its worker"),
        (Yields, "handle: 'items' is a stream that the caller sends, and a generator handler would block its worker"),
        (Optional, "'items' may be a stream or something else"),
        (Default, "handle: 'items' is a stream that the caller sends, so it has no default"),
        (Again, "handle: a @resumable handler is begun again behind what it had sent"),
    ):
        with pytest.raises(slabwire.GraphError, match=why):
            Graph("refused").add(code)


def test_nothing_leads_to_a_stream_but_a_call() -> None:
    class Source(Actor):
        def handle(self, n: int) -> int:
            return n

    graph = Graph("edges")
    source, adder = graph.add(Source), graph.add(Adder)
    graph.connect(source.handle, adder.sum)
    with pytest.raises(slabwire.GraphError, match=r"adder.sum takes a stream in 'numbers', which only a call can send"):
        graph.validate()
    graph = Graph("hashed")
    graph.add(Mortal, replicas=2, routing="hash:numbers", folder="")
    with pytest.raises(slabwire.GraphError, match="sum takes numbers: a stream of int; a key is a str"):
        graph.validate()
    graph = Graph("told")
    graph.expose(graph.add(Adder).sum)
    spec = graph.validate()
    assert graph_from_plain(msgpack.unpackb(msgpack.packb(spec.to_plain()))) == spec
    assert spec.actor("adder").handler("sum").fields[0].stream


class HandsOn(Actor):
    async def hand_on(self, n: int) -> Any:
        return self.delegate("adder.sum", numbers=[n])


def test_no_request_is_handed_on_to_a_port_that_takes_a_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(tmp_path))
    graph = graph_of_streams()
    graph.expose(graph.add(HandsOn).hand_on)
    with (
        graph.run(name="handing") as running,
        pytest.raises(slabwire.MessageError, match=r"adder.sum takes a stream in 'numbers', which only"),
    ):
        running.client.call("handson.hand_on", 1)
