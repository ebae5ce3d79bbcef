"""Streams that callers send, on the graph's host and from elsewhere: read by handlers as they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest

import slabwire
from sent_stage import Point, arrays, graph_of_streams
from slabwire.runtime.clients.control import Control
from slabwire.runtime.clients.shared_connection import SharedConnection
from slabwire.runtime.control.verbs import OpenGateway
from waiting import wait_until
from zero_copy import zero_copy_thread  # noqa: F401 - a fixture

Act = Callable[[slabwire.AsyncClient], Any]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of a graph for remote clients."""
    with TemporaryDirectory(prefix="sw-", dir="/tmp") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLABWIRE_RUN_DIR", folder)
        with graph_of_streams().run(listen="tcp://127.0.0.1:*", drain_timeout_s=0.1) as running:
            with Control(running.name) as control:
                listening = str(control.request(OpenGateway())["listen"][0])
            yield listening


FORMS = ["processes", "one process", "remote"]


@pytest.fixture(params=FORMS)
def within(
    request: pytest.FixtureRequest, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Act], Any]:
    """Runs something with a client of the graph, in both forms, and with one that is remote."""
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(tmp_path))

    def run(act: Act) -> Any:
        async def main() -> Any:
            if request.param == "remote":
                async with slabwire.connect_async(address) as client:
                    await client.call("adder.forget")
                    return await act(client)
            async with (
                graph_of_streams().run(in_process=request.param == "one process", drain_timeout_s=0.1) as running,
                slabwire.connect_async(running.name) as client,
            ):
                return await act(client)

        return asyncio.run(main())

    return run


def test_a_handler_reads_what_its_caller_sends(within: Callable[[Act], Any]) -> None:
    async def act(client: slabwire.AsyncClient) -> Any:
        async def numbers() -> AsyncIterator[int]:
            for each in range(3000):
                yield each

        return [
            await client.call("adder.sum", range(3000)),
            await client.call("adder.sum", numbers(), scale=2),
            await client.call("adder.sum", []),
            await client.call("adder.points", [Point(1), Point(2, 3)]),
            [each async for each in client.stream("adder.each", (n for n in range(1000)))],
            await client.call("asker.ask", 500),
            await client.call("asker.passes_on", range(1000)),
        ]

    total = sum(range(3000))
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
        await until(lambda: all(each.pulled == 64 for each in slow[:63]))
        assert await client.call("adder.sum", range(5000)) == sum(range(5000))
        assert [each async for each in client.stream("adder.each", range(300))] == list(range(300))
        calls += [asyncio.create_task(client.call("adder.never_reads", each.plain())) for each in slow[63:]]
        await until(lambda: slow[63].pulled == 64)
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
            await asyncio.to_thread(from_a_thread, client._where),
            await client.call("asker.large", 1 << 20, 200),
        ]

    def from_a_thread(where: str) -> Any:
        with slabwire.connect(where) as client:
            return client.call("adder.sizes", arrays(1 << 20, 200))

    assert within(act) == [200 * (1 << 20) + sum(range(200))] * 3


# -- threads -----------------------------------------------------------------------------------------------------------


@pytest.fixture(params=FORMS)
def client(
    request: pytest.FixtureRequest, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[slabwire.Client]:
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(tmp_path))
    if request.param == "remote":
        with slabwire.connect(address) as client:
            yield client
        return
    with graph_of_streams().run(in_process=request.param == "one process", drain_timeout_s=0.1) as running:
        yield running.client


def test_the_thread_that_waits_for_the_answer_sends_the_stream(client: slabwire.Client) -> None:
    assert client.call("adder.sum", range(3000)) == sum(range(3000))
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


def test_threads_that_share_a_client_send_side_by_side(client: slabwire.Client) -> None:
    def send(k: int) -> int:
        if k % 3 == 0:
            return int(client.call("adder.twice", k))
        if k % 3 == 1:
            return int(client.call("adder.sum", range(300 + k)))
        return sum(client.stream("adder.each", iter(range(200 + k))))

    with ThreadPoolExecutor(12) as pool:
        got = list(pool.map(send, range(48)))
    assert got == [2 * k if k % 3 == 0 else sum(range((300 if k % 3 == 1 else 200) + k)) for k in range(48)]


@pytest.mark.parametrize("client", FORMS[:2], indirect=True)
def test_what_was_given_up_beside_another_thread_goes_with_the_client(client: slabwire.Client) -> None:
    client = slabwire.connect(client.name)
    stream = client.stream("adder.each", iter(range(100)))
    assert next(stream) == 0
    connection = client._connection
    assert isinstance(connection, SharedConnection)
    with connection._lock:
        stream.close()  # the lock is taken: whoever takes it next cancels
    client.close()
    assert not connection._given_up
    assert not connection.local.caller.streams.waiting
