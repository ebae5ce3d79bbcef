"""Streams of remote clients by the hundred: together in few messages, and each paused alone."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from tempfile import TemporaryDirectory
from typing import Any

import msgpack
import numpy as np
import pytest
import zmq

import slabwire
from slabwire import Actor, Graph, ReplyStream
from slabwire.runtime.clients.control import Control
from slabwire.runtime.control.verbs import OpenGateway
from waiting import wait_until

MIB = 1 << 20


class Source(Actor):
    """Makes an item of each open stream when it is told to."""

    def __init__(self) -> None:
        self.open: list[ReplyStream[Any]] = []

    def numbers(self, first: int = 0) -> ReplyStream[Any]:
        stream: ReplyStream[Any] = self.reply_stream()
        stream.tag = first
        self.open.append(stream)
        return stream

    def step(self, steps: int = 1) -> int:
        """How many streams had room in the last step."""
        ready: list[ReplyStream[Any]] = []
        for _ in range(steps):
            ready = [each for each in self.open if each.is_open and each.room]
            self.publish([(each, each.tag) for each in ready])
            for each in ready:
                each.tag += 1
        return len(ready)

    def mixed(self, n: int) -> None:
        """Small and large items, with an array and without, in turn."""
        for k in range(n):
            for value in (k, np.full(10_000, k), "x" * 9_000 + str(k), [k, np.full(8, k)]):
                self.publish([(each, value) for each in self.open])

    def bulk(self, n: int) -> None:
        for _ in range(n):
            self.publish([(each, bytes(MIB)) for each in self.open if each.is_open and each.room])

    def finish(self) -> None:
        streams, self.open = self.open, []
        self.publish([], ended=streams)

    def break_off(self) -> None:
        for each in self.open:
            each.fail(ValueError("broke off"))

    def count(self) -> int:
        return sum(each.is_open for each in self.open)


class Narrow(Actor):
    """Has room for two streams, and for calls."""

    async def ticks(self) -> AsyncIterator[int]:
        yield 0
        await asyncio.Event().wait()

    def upto(self, n: int) -> Iterator[int]:
        yield from range(n)

    def it(self, value: object) -> object:
        return value


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    graph = Graph("sources")
    source, narrow = graph.add(Source, concurrency=2000), graph.add(Narrow, concurrency=2)
    graph.expose(source.numbers, source.step, source.mixed, source.bulk, source.finish, source.break_off, source.count)
    graph.expose(narrow.ticks, narrow.upto, narrow.it)
    with TemporaryDirectory(prefix="sw-", dir="/tmp") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLABWIRE_RUN_DIR", f"{folder}/run")
        with graph.run(listen="tcp://127.0.0.1:*", drain_timeout_s=0.1), Control("sources") as control:
            yield str(control.request(OpenGateway())["listen"][0])


@pytest.fixture
def within(address: str) -> Callable[[Callable[[slabwire.AsyncClient], Any]], Any]:
    """Runs something with a client of the gateway; no stream is open before it."""

    def run(act: Callable[[slabwire.AsyncClient], Any]) -> Any:
        async def main() -> Any:
            async with slabwire.connect_async(address) as client:
                await opened(client, 0)
                await client.call("source.finish")
                return await act(client)

        return asyncio.run(main())

    return run


async def opened(client: slabwire.AsyncClient, n: int) -> None:
    """Returns when so many streams are open at the source."""
    while await client.call("source.count") != n:
        await asyncio.sleep(0.01)


async def collected(group: slabwire.StreamGroup, until: Callable[[dict[Any, list[Any]]], bool]) -> dict[Any, list[Any]]:
    """What has come of each stream, by its tag."""
    seen: dict[Any, list[Any]] = {}
    while not until(seen):
        stream, items = await anext(group)
        seen.setdefault(stream.tag, []).extend(items)
        if stream.is_over:
            seen[stream.tag].append(stream.error if stream.error is not None else "end")
    return seen


def begun(client: slabwire.AsyncClient, n: int) -> tuple[slabwire.StreamGroup, list[slabwire.IncomingStream]]:
    group = client.streams()
    streams = [group.begin("source.numbers", each * 1000) for each in range(n)]
    for number, each in enumerate(streams):
        each.tag = number
    return group, streams


Within = Callable[[Callable[[slabwire.AsyncClient], Any]], Any]


# -- by the clients of slabwire ---------------------------------------------------------------------------------------


def test_500_streams_get_their_own_items_in_order(within: Within) -> None:
    async def act(client: slabwire.AsyncClient) -> Any:
        group, _ = begun(client, 500)
        await opened(client, 500)
        reading = asyncio.create_task(collected(group, lambda _: len(group) == 0))
        for _ in range(10):
            await client.call("source.step", 10)
            await asyncio.sleep(0.01)
        await client.call("source.finish")
        return await reading

    for tag, items in within(act).items():
        assert items.pop() == "end"
        assert items == list(range(tag * 1000, tag * 1000 + len(items)))
        assert len(items) >= 64


def test_a_slow_one_among_500_holds_up_nobody_and_loses_nothing(within: Within) -> None:
    async def act(client: slabwire.AsyncClient) -> Any:
        group, streams = begun(client, 500)
        streams[7].pause()
        await opened(client, 500)
        reading = asyncio.create_task(collected(group, lambda seen: len(seen.get(0, ())) >= 300))
        while not reading.done():
            had_room = await client.call("source.step", 10)
            await asyncio.sleep(0.01)
        assert had_room < 500
        streams[7].resume()
        seen = await reading
        assert len(seen[7]) <= 64
        while await client.call("source.step") < 500:
            rest = await collected(group, lambda rest: bool(rest))
            for tag, items in rest.items():
                seen[tag] += items
        await client.call("source.finish")
        rest = await collected(group, lambda _: len(group) == 0)
        return {tag: [*items, *rest.get(tag, [])] for tag, items in seen.items()}

    for tag, items in within(act).items():
        assert items.pop() == "end"
        assert items == list(range(tag * 1000, tag * 1000 + len(items))), tag
        assert len(items) > (64 if tag == 7 else 300)


def test_cancelled_streams_are_over_at_the_source_and_their_places_are_free(within: Within) -> None:
    async def act(client: slabwire.AsyncClient) -> None:
        for _ in range(2):
            group, streams = begun(client, 1000)
            await opened(client, 1000)
            await client.call("source.step", 3)
            for each in streams[:500]:
                each.cancel()
            group.close()
            await opened(client, 0)

    within(act)


def test_more_streams_than_a_client_may_have_end_with_overloaded(within: Within) -> None:
    async def act(client: slabwire.AsyncClient) -> Any:
        group, _ = begun(client, 1100)
        seen = await collected(group, lambda seen: len(seen) == 76)
        group.close()
        await opened(client, 0)
        return seen

    for (error,) in within(act).values():
        assert isinstance(error, slabwire.Overloaded)
        assert error.not_begun
        assert "1024 calls of this client are in flight" in str(error)


def test_small_and_large_items_keep_their_order(within: Within) -> None:
    async def act(client: slabwire.AsyncClient) -> Any:
        group, _ = begun(client, 5)
        await opened(client, 5)
        await client.call("source.mixed", 10)
        await client.call("source.finish")
        return await collected(group, lambda _: len(group) == 0)

    for items in within(act).values():
        assert items.pop() == "end"
        assert items[::4] == list(range(10))
        assert [int(each[-1]) for each in items[1::4]] == list(range(10))
        assert items[2::4] == ["x" * 9_000 + str(k) for k in range(10)]
        assert [(k, int(array[0])) for k, array in items[3::4]] == [(k, k) for k in range(10)]


def test_errors_come_behind_the_items(within: Within) -> None:
    async def act(client: slabwire.AsyncClient) -> Any:
        group, _ = begun(client, 50)
        await opened(client, 50)
        await client.call("source.step", 3)
        await client.call("source.break_off")
        return await collected(group, lambda _: len(group) == 0)

    for tag, items in within(act).items():
        error = items.pop()
        assert isinstance(error, slabwire.HandlerError)
        assert "ValueError: broke off" in str(error)
        assert items == list(range(tag * 1000, tag * 1000 + 3))


def test_threads_of_a_blocking_client_read_streams_side_by_side(address: str) -> None:
    got: dict[int, list[int]] = {}

    def read(first: int) -> None:
        got[first] = list(client.stream("source.numbers", first))

    with slabwire.connect(address) as client:
        threads = [threading.Thread(target=read, args=(each * 1000,)) for each in range(20)]
        for each in threads:
            each.start()
        wait_until(lambda: client.call("source.count") == 20)
        for _ in range(10):
            client.call("source.step", 20)
        client.call("source.finish")
        for each in threads:
            each.join()
    for first, items in got.items():
        assert items == list(range(first, first + len(items)))
        assert len(items) >= 64


CLIENT = """
import asyncio, sys, slabwire
async def main():
    async with slabwire.connect_async(sys.argv[1]) as client:
        group = client.streams()
        for each in range(300):
            group.begin("source.numbers", each)
        while await client.call("source.count") < 300:
            pass
        await client.call("source.step", 200)
        print("begun", flush=True)
        await asyncio.sleep(1000)
asyncio.run(main())
"""


def test_the_streams_of_a_killed_client_are_cancelled(within: Within, address: str) -> None:
    with subprocess.Popen([sys.executable, "-c", CLIENT, address], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        process.kill()
    within(lambda client: opened(client, 0))


# -- by a client that speaks as docs/wire.md says ----------------------------------------------------------------------


class Stranger:
    """Takes messages of many items, or does not."""

    def __init__(self, address: str, *, takes_items: bool) -> None:
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.RCVTIMEO, 30_000)
        self.socket.connect(address)
        self.send(None, kind="hello", **({"items": True} if takes_items else {}))
        head, _ = self.receive()
        assert head == {"version": 1, "kind": "welcome", "sends": True, **({"items": True} if takes_items else {})}

    def send(self, payload: Any, **head: Any) -> None:
        self.socket.send_multipart([msgpack.packb({"version": 1, **head}), msgpack.packb(payload)])

    def stream(self, number: int, port: str = "source.numbers", credit: int = 1000, **how: Any) -> None:
        self.send(how.pop("fields", {}), kind="call", id=number, port=port, stream=True, credit=credit, **how)

    def receive(self) -> tuple[dict[str, Any], Any]:
        head, payload, *_ = self.socket.recv_multipart()
        return msgpack.unpackb(head), msgpack.unpackb(payload)

    def items(self, n: int) -> list[Any]:
        """The next so many items, of one stream."""
        found: list[Any] = []
        while len(found) < n:
            head, value = self.receive()
            assert head["kind"] in ("item", "items")
            found += value[1] if head["kind"] == "items" else [value]
        return found

    def is_silent(self) -> bool:
        """Whether nothing comes before the answer to a ping."""
        self.send(None, kind="ping", id=77)
        return bool(self.receive()[0]["kind"] == "pong")

    def __enter__(self) -> Stranger:
        return self

    def __exit__(self, *_: object) -> None:
        self.context.destroy(linger=0)


@pytest.fixture
def teller(address: str) -> Iterator[slabwire.Client]:
    """Tells the source what to do; no stream is open before it."""
    with slabwire.connect(address) as client:
        wait_until(lambda: client.call("source.count") == 0)
        client.call("source.finish")
        yield client


def test_a_step_of_many_streams_is_one_message(address: str, teller: slabwire.Client) -> None:
    with Stranger(address, takes_items=True) as client:
        for each in range(1, 101):
            client.stream(each, fields={"first": each})
        wait_until(lambda: teller.call("source.count") == 100)
        for step in range(3):
            teller.call("source.step")
            head, (entries, values) = client.receive()
            assert head == {"version": 1, "kind": "items"}
            assert sorted(entries) == [[each, 1, False] for each in range(1, 101)]
            assert values == [number + step for number, _, _ in entries]
        teller.call("source.finish")
        _, (entries, values) = client.receive()
        assert sorted(entries) == [[each, 0, True] for each in range(1, 101)]
        assert values == []


def test_a_client_of_before_gets_each_item_alone(address: str, teller: slabwire.Client) -> None:
    with Stranger(address, takes_items=False) as client:
        for each in (1, 2):
            client.stream(each, fields={"first": each})
        wait_until(lambda: teller.call("source.count") == 2)
        teller.call("source.step", 3)
        teller.call("source.finish")
        came = [client.receive() for _ in range(8)]
    for each in (1, 2):
        own = [(head["kind"], value) for head, value in came if head["id"] == each]
        assert own == [*(("item", each + k) for k in range(3)), ("end", None)]


@pytest.mark.parametrize("takes_items", [True, False])
def test_without_credit_nothing_comes_but_the_others_go_on(
    address: str, teller: slabwire.Client, takes_items: bool
) -> None:
    with Stranger(address, takes_items=takes_items) as client:
        client.stream(1, credit=0)
        client.stream(2, port="narrow.upto", fields={"n": 500})
        wait_until(lambda: teller.call("source.count") == 1)
        wait_until(lambda: teller.call("source.step", 10) == 0)  # it is paused
        kinds: list[str] = []
        while not kinds or kinds[-1] != "end":
            head, value = client.receive()
            assert head.get("id", 2) == 2
            kinds += ["end" if value[0][0][2] else "items"] if takes_items else [head["kind"]]
        assert client.is_silent()
        client.send(None, kind="credit", id=1, credit=5)
        assert client.items(5) == [0, 1, 2, 3, 4]
        assert client.is_silent()
        assert teller.call("source.step") == 0  # it waits until all that have come are taken
        client.send(None, kind="cancel", id=1)
        wait_until(lambda: teller.call("source.count") == 0)


def test_a_deadline_ends_what_waits_for_credit(address: str, teller: slabwire.Client) -> None:
    with Stranger(address, takes_items=True) as client:
        client.stream(1, port="narrow.upto", credit=2, fields={"n": 10}, timeout_s=1.0)
        assert client.items(2) == [0, 1]
        head, _ = client.receive()
        assert (head["kind"], head["id"], head["code"]) == ("error", 1, "deadline")
        client.stream(1, port="narrow.upto", fields={"n": 1})  # its id is free again
        assert client.items(1) == [0]
        assert teller.call("narrow.it", 1) == 1


def test_streams_that_wait_for_a_place_hold_up_no_call(address: str) -> None:
    with Stranger(address, takes_items=True) as client, slabwire.connect(address) as other:
        for each in range(1, 20):
            client.stream(each, port="narrow.ticks")
        assert [client.receive()[0]["kind"] for _ in range(1)] == ["items"]
        for each in range(10):
            assert other.call("narrow.it", each, timeout_s=60.0) == each


def test_more_credit_than_one_may_have_ends_the_conversation(address: str) -> None:
    with Stranger(address, takes_items=True) as client:
        client.stream(1, credit=1000)
        client.send(None, kind="credit", id=1, credit=100)
        head, _ = client.receive()
        assert (head["kind"], head["code"], "id" in head) == ("error", "protocol", False)


def test_bulk_that_waits_for_credit_is_bounded(address: str, teller: slabwire.Client) -> None:
    """Five streams of 64 MiB each, of which nothing is taken: not all of them can wait in the gateway."""
    with Stranger(address, takes_items=True) as client:
        for each in range(1, 6):
            client.stream(each, credit=0)
        wait_until(lambda: teller.call("source.count") == 5)
        wait_until(lambda: teller.call("source.bulk", 8) is None and teller.call("source.count") < 5)
        teller.call("source.finish")
        client.send(None, kind="cancel", id=9)  # of nothing
        for each in range(1, 6):
            client.send(None, kind="credit", id=each, credit=100)
        ends: dict[int, str] = {}
        while len(ends) < 5:
            head, value = client.receive()
            if head["kind"] == "error":
                assert "put the bulk into arrays" in value
                ends[head["id"]] = head["code"]
            elif head["kind"] == "items":
                ends.update((number, "end") for number, _, is_over in value[0] if is_over)
        assert set(ends.values()) == {"end", "overloaded"}


def test_more_streams_than_a_gateway_has_places_for_end_with_overloaded(within: Within, address: str) -> None:
    async def act(client: slabwire.AsyncClient) -> list[str]:
        refused: list[str] = []
        others = [await slabwire.connect_async(address).open() for _ in range(5)]
        for each in others:
            group = each.streams(lambda stream, _: refused.append(str(stream.error)))
            for _ in range(1000):
                group.begin("source.numbers")
        while len(refused) < 904:
            await asyncio.sleep(0.01)
        for each in others:
            assert await each.call("narrow.it", 1) == 1  # calls have places of their own
            assert len(refused) == 904
        for each in others:
            await each.close()
        await opened(client, 0)
        return refused[:904]

    assert within(act) == ["4096 streams are open at this gateway; try again when some have ended"] * 904
