"""Streams that callers send: in processes and in one process, read by handlers as they come."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest

import slabwire
from lanes import lanes_of
from slabwire import Actor, Graph
from slabwire.runtime.clients.control import Control
from slabwire.runtime.control.verbs import OpenGateway, Restart
from slabwire.runtime.message.header import Kind
from slabwire.runtime.message.payload import Payload
from slabwire.runtime.spec import graph_from_plain
from waiting import wait_until, worker_of


@dataclass
class Point:
    x: int
    y: int = 2


class Adder(Actor):
    def __init__(self) -> None:
        self.kept: list[Any] = []
        self.ended: list[str] = []

    async def sum(self, numbers: AsyncIterator[int], scale: int = 1) -> int:
        total = 0
        async for each in numbers:
            total += each
        return total * scale

    async def each(self, items: AsyncGenerator[Any, None]) -> AsyncIterator[Any]:
        async for each in items:
            yield each

    async def first(self, items: AsyncIterable[Any], n: int = 1) -> list[Any]:
        got = []
        if n:
            async for each in items:
                got.append(each)
                if len(got) == n:
                    break
        return got

    async def never_reads(self, items: AsyncIterator[Any], mark: str = "") -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            self.ended.append(mark)

    async def reads_for_ever(self, items: AsyncIterator[Any], mark: str = "") -> int:
        n = 0
        try:
            async for _ in items:
                n += 1
            await asyncio.sleep(3600)
        finally:
            self.ended.append(mark)
        return n

    async def points(self, points: AsyncIterator[Point]) -> int:
        total = 0
        async for each in points:
            assert isinstance(each, Point)
            total += each.x + each.y
        return total

    async def caught(self, items: AsyncIterator[int]) -> str:
        try:
            async for _ in items:
                pass
        except slabwire.SlabwireError as error:
            self.ended.append(f"{type(error).__name__}: {error}")
        return "caught"

    async def sizes(self, arrays: AsyncIterator[Any]) -> int:
        total = 0
        async for each in arrays:
            total += int(each[0]) + each.nbytes
        return total

    async def probes(self, items: AsyncGenerator[int, None]) -> list[Any]:
        first = await anext(items)
        both = await asyncio.gather(anext(items), anext(items), return_exceptions=True)
        await items.aclose()
        return [first, *(str(each) for each in both), [each async for each in items]]

    def over(self) -> list[str]:
        return self.ended

    def twice(self, n: int) -> int:
        return 2 * n


def arrays(nbytes: int, n: int) -> Iterator[Any]:
    for each in range(n):
        yield np.full(nbytes // 8, each)


class Asker(Actor):
    async def ask(self, n: int) -> int:
        async def numbers() -> AsyncIterator[int]:
            for each in range(n):
                await asyncio.sleep(0)
                yield each

        total: int = await self.call("adder.sum", numbers(), scale=2)
        total += await self.call("adder.sum", range(n))
        echoed = [each async for each in self.stream("adder.each", iter(range(n)))]
        return total + int(sum(echoed))

    async def large(self, nbytes: int, n: int) -> int:
        return int(await self.call("adder.sizes", arrays(nbytes, n)))

    async def passes_on(self, numbers: AsyncIterator[int]) -> int:
        return int(await self.call("adder.sum", numbers))


def graph_of_streams() -> Graph:
    graph = Graph("sent")
    adder, asker = graph.add(Adder), graph.add(Asker, memory_bytes=8 << 20)
    ports = (
        "sum",
        "each",
        "first",
        "never_reads",
        "reads_for_ever",
        "points",
        "caught",
        "sizes",
        "over",
        "twice",
        "probes",
    )
    graph.expose(*(getattr(adder, each) for each in ports), asker.ask, asker.passes_on, asker.large)
    return graph


Act = Callable[[slabwire.AsyncClient], Any]


@pytest.fixture(params=[False, True], ids=["processes", "one process"])
def within(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Act], Any]:
    """Runs something with a client of the graph, in both forms."""
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(tmp_path))

    def run(act: Act) -> Any:
        async def main() -> Any:
            async with (
                graph_of_streams().run(in_process=request.param, drain_timeout_s=0.1) as running,
                slabwire.connect_async(running.name) as client,
            ):
                return await act(client)

        return asyncio.run(main())

    return run


def test_a_handler_reads_what_its_caller_sends(within: Callable[[Act], Any]) -> None:
    async def act(client: slabwire.AsyncClient) -> Any:
        async def numbers() -> AsyncIterator[int]:
            for each in range(10_000):
                yield each

        return [
            await client.call("adder.sum", range(10_000)),
            await client.call("adder.sum", numbers(), scale=2),
            await client.call("adder.sum", []),
            await client.call("adder.points", [Point(1), Point(2, 3)]),
            [each async for each in client.stream("adder.each", (n for n in range(1000)))],
            await client.call("asker.ask", 500),
            await client.call("asker.passes_on", range(1000)),
        ]

    total = sum(range(10_000))
    assert within(act) == [total, 2 * total, 0, 8, list(range(1000)), 4 * sum(range(500)), sum(range(1000))]


async def until(done: Callable[[], Any]) -> None:
    while not done():
        await asyncio.sleep(0.01)


async def ended_are(client: slabwire.AsyncClient, names: list[str]) -> None:
    while await client.call("adder.over") != names:
        await asyncio.sleep(0.01)


class Numbers:
    """Counts for ever, and notes how far it came and whether it was closed."""

    def __init__(self, most: int = 1 << 62) -> None:
        self.most = most
        self.pulled = 0
        self.closed = False

    def plain(self) -> Iterator[int]:
        try:
            while self.pulled < self.most:
                self.pulled += 1
                yield self.pulled
        finally:
            self.closed = True

    async def waiting(self) -> AsyncIterator[int]:
        try:
            for each in self.plain():
                await asyncio.sleep(0)
                yield each
            await asyncio.sleep(3600)
        finally:
            self.closed = True


def test_one_task_at_a_time_reads_a_stream_and_may_close_it(within: Callable[[Act], Any]) -> None:
    async def act(client: slabwire.AsyncClient) -> Any:
        async def numbers() -> AsyncIterator[int]:
            yield 1
            await asyncio.sleep(0.1)
            for each in range(2, 100):
                yield each

        return await client.call("adder.probes", numbers())

    assert within(act) == [1, "2", "another task reads this stream already", []]


def test_streams_of_a_group_send_too(within: Callable[[Act], Any]) -> None:
    async def act(client: slabwire.AsyncClient) -> Any:
        group = client.streams()
        for each in range(20):
            group.begin("adder.each", range(each, each + 200)).tag = each
        seen: dict[int, list[Any]] = {each: [] for each in range(20)}
        while len(group):
            stream, items = await anext(group)
            seen[stream.tag] += items
        left = Numbers()
        group.begin("adder.each", left.plain())
        await until(lambda: left.pulled)
        group.close()
        await until(lambda: left.closed)
        return seen

    assert within(act) == {each: list(range(each, each + 200)) for each in range(20)}


@pytest.mark.parametrize("form", ["plain", "waiting"])
def test_a_handler_that_returns_early_closes_the_iterator(within: Callable[[Act], Any], form: str) -> None:
    async def act(client: slabwire.AsyncClient) -> None:
        numbers = Numbers()
        assert await client.call("adder.first", getattr(numbers, form)(), n=3) == [1, 2, 3]
        assert numbers.closed
        unread = Numbers()
        assert await client.call("adder.first", getattr(unread, form)(), n=0) == []
        assert unread.closed == (unread.pulled > 0), "what was never begun needs no end"
        stream = client.stream("adder.each", getattr(third := Numbers(), form)())
        assert [await anext(stream) for _ in range(200)] == list(range(1, 201))
        await stream.aclose()
        assert third.closed
        assert await client.call("adder.sum", [1, 2]) == 3

    within(act)


def test_a_stream_runs_a_window_ahead_and_holds_up_nobody(within: Callable[[Act], Any]) -> None:
    async def act(client: slabwire.AsyncClient) -> None:
        slow = [Numbers() for _ in range(70)]  # more than the actor handles at once
        calls = [asyncio.create_task(client.call("adder.never_reads", each.plain())) for each in slow[:63]]
        await until(lambda: all(each.pulled for each in slow[:63]))
        assert await client.call("adder.sum", range(5000)) == sum(range(5000))
        assert [each async for each in client.stream("adder.each", range(300))] == list(range(300))
        calls += [asyncio.create_task(client.call("adder.never_reads", each.plain())) for each in slow[63:]]
        await until(lambda: slow[63].pulled)
        for each in reversed(calls):  # those first that wait for a place, which the others are about to leave
            each.cancel()
        await asyncio.wait(calls)
        assert {each.pulled for each in slow[:64]} == {64}
        assert {each.pulled for each in slow[64:]} == {0}, "nothing is pulled before the handler begins"
        assert all(each.closed for each in slow[:64])
        await ended_are(client, [""] * 64)

    within(act)


def test_arrays_that_nobody_reads_hold_up_no_other_stream(within: Callable[[Act], Any]) -> None:
    async def act(client: slabwire.AsyncClient) -> None:
        slow = [
            asyncio.create_task(client.call("adder.never_reads", (np.full(50, 1.0) for _ in range(100))))
            for _ in range(20)
        ]
        assert await client.call("adder.sizes", (np.full(1000, k) for k in range(500))) == 500 * 8000 + sum(range(500))
        for each in slow:
            each.cancel()
        await asyncio.wait(slow)

    within(act)


def test_what_the_iterator_raises_reaches_the_handler_and_then_the_caller(within: Callable[[Act], Any]) -> None:
    def breaks(error: BaseException) -> Iterator[int]:
        yield from range(100)
        raise error

    async def act(client: slabwire.AsyncClient) -> Any:
        for own in (ValueError("mine"), slabwire.EdgeFull("ours"), slabwire.MessageError("wrong")):
            with pytest.raises(type(own)) as raised:
                await client.call("adder.caught", breaks(own), retries=3)
            assert raised.value is own
        stream = client.stream("adder.each", (1 // (10 - n) for n in range(20)))
        assert [await anext(stream) for _ in range(10)] == [1 // (10 - n) for n in range(10)]
        with pytest.raises(ZeroDivisionError):
            await anext(stream)
        with pytest.raises(slabwire.MessageError, match="is a set"):
            await client.call("adder.caught", iter([1, {2}]))
        return await client.call("adder.over")

    first, second, third, fourth = within(act)
    assert first.startswith("HandlerError: the caller's stream: ValueError: mine")
    assert (second, third) == ("EdgeFull: ours", "MessageError: wrong")
    assert fourth.startswith("MessageError: ")


def test_an_item_of_another_type_ends_the_call(within: Callable[[Act], Any]) -> None:
    async def act(client: slabwire.AsyncClient) -> None:
        expected = r"adder.sum: field 'numbers': an item of its stream: expected int, got str"
        with pytest.raises(slabwire.MessageError, match=expected):
            await client.call("adder.sum", iter([1, 2, "three", *range(1000)]))
        with pytest.raises(slabwire.MessageError, match=r"adder.points: field 'points'"):
            await client.call("adder.points", [{"x": 1, "z": 1}])
        for wrong in (5, "text", {"a": 1}, None):
            with pytest.raises(slabwire.MessageError, match=r"field 'numbers': expected a stream .*, got"):
                await client.call("adder.sum", wrong)
        with pytest.raises(slabwire.MessageError, match="'numbers' is missing; it takes numbers: a stream of int"):
            await client.call("adder.sum")
        with pytest.raises(slabwire.MessageError, match="has no idempotency_key"):
            await client.call("adder.sum", [1], idempotency_key=True)

    within(act)


@pytest.mark.parametrize("how", ["cancel", "deadline"])
def test_a_caller_that_leaves_ends_the_handler(within: Callable[[Act], Any], how: str) -> None:
    async def act(client: slabwire.AsyncClient) -> None:
        numbers = Numbers(300)
        timeout_s = 0.5 if how == "deadline" else None
        call = asyncio.create_task(
            client.call("adder.reads_for_ever", numbers.waiting(), mark="left", timeout_s=timeout_s)
        )
        await until(lambda: numbers.pulled == 300)
        if how == "cancel":
            call.cancel()
        with pytest.raises((asyncio.CancelledError, slabwire.DeadlineExceeded)):
            await call
        assert numbers.closed
        await ended_are(client, ["left"])

    within(act)


def test_large_arrays_wait_for_blocks_that_come_back(
    within: Callable[[Act], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A window of them is eight times what this client's slabs, and this actor's, may hold."""
    monkeypatch.setattr("slabwire.runtime.clients.local.CLIENT_SLABS_NBYTES", 8 << 20)

    async def act(client: slabwire.AsyncClient) -> Any:
        return [
            await client.call("adder.sizes", arrays(1 << 20, 200)),
            await asyncio.to_thread(from_a_thread, client.name),
            await client.call("asker.large", 1 << 20, 200),
        ]

    def from_a_thread(name: str) -> Any:
        with slabwire.connect(name) as client:
            return client.call("adder.sizes", arrays(1 << 20, 200))

    assert within(act) == [200 * (1 << 20) + sum(range(200))] * 3


# -- threads -----------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["processes", "one process"])
def running(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(tmp_path))
    with graph_of_streams().run(in_process=request.param == "one process", drain_timeout_s=0.1) as running:
        yield running


def test_the_thread_that_waits_for_the_answer_sends_the_stream(running: Any) -> None:
    client = running.client
    assert client.call("adder.sum", range(10_000)) == sum(range(10_000))
    assert list(client.stream("adder.each", (n for n in range(1000)))) == list(range(1000))
    early = Numbers()
    assert client.call("adder.first", early.plain(), n=3) == [1, 2, 3]
    assert early.closed
    assert early.pulled <= 64 + 32
    unread = Numbers()
    assert client.call("adder.first", unread.plain(), n=0) == []
    late = Numbers()
    with pytest.raises(slabwire.DeadlineExceeded):
        client.call("adder.never_reads", late.plain(), timeout_s=0.3)
    assert late.closed
    assert late.pulled == 64
    left = Numbers()
    for each in client.stream("adder.each", left.plain()):
        if each == 200:
            break
    assert wait_until(lambda: left.closed)
    with pytest.raises(KeyError):
        client.call("adder.sum", ({k: k for k in range(100)}[n] for n in range(1000)))

    async def never() -> AsyncIterator[int]:
        yield 1

    with pytest.raises(slabwire.MessageError, match="a blocking client cannot wait for an asynchronous iterable"):
        client.call("adder.sum", never())
    with pytest.raises(slabwire.MessageError, match="has no idempotency_key"):
        client.call("adder.sum", [1], idempotency_key="k")
    assert client.call("adder.sum", [3], retries=2) == 3


def test_threads_that_share_a_client_send_side_by_side(running: Any) -> None:
    client = running.client

    def send(k: int) -> int:
        if k % 3 == 0:
            return int(client.call("adder.twice", k))
        if k % 3 == 1:
            return int(client.call("adder.sum", range(1000 + k)))
        return sum(client.stream("adder.each", iter(range(700 + k))))

    with ThreadPoolExecutor(12) as pool:
        got = list(pool.map(send, range(48)))
    assert got == [2 * k if k % 3 == 0 else sum(range((1000 if k % 3 == 1 else 700) + k)) for k in range(48)]


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


def test_remote_clients_send_none_for_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(tmp_path))
    expected = "adder.sum takes a stream in 'numbers', and a stream can be sent on the graph's own host only for now"
    with graph_of_streams().run(listen="tcp://127.0.0.1:*") as served:
        with Control(served.name) as control:
            address = str(control.request(OpenGateway())["listen"][0])
        with slabwire.connect(address) as client:
            assert client.call("adder.twice", 2) == 4
            with pytest.raises(slabwire.MessageError, match=expected):
                client.call("adder.sum", [1, 2])
            session: Any = client._connection
            session._dealer.session.ports._intakes["adder.sum"].stream = None  # a client of another making
            with pytest.raises(slabwire.MessageError, match=expected):
                client.call("adder.sum", [1, 2])


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
