"""Streams that remote clients send: what becomes of them when somebody dies, vanishes, or breaks the rules.

What local and remote clients have in common stands in `test_input_streams.py`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import msgpack
import numpy as np
import pytest
import zmq

import slabwire
from sent_stage import graph_of_streams
from slabwire import Actor
from slabwire.runtime.clients.control import Control
from slabwire.runtime.control.verbs import OpenGateway
from slabwire.runtime.errors import ClientClosed
from waiting import wait_until, worker_of
from zero_copy import zero_copy_thread  # noqa: F401 - a fixture
from zmtp import Bare

MIB = 1 << 20


class Mortal(Actor):
    """Writes down where it has come to, for whoever kills it."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    async def sum(self, numbers: AsyncIterator[int], mark: str) -> list[int]:
        with (self.folder / f"{mark}-begun").open("a") as notes:
            notes.write(".")
        total = 0
        try:
            async for each in numbers:
                total += each
                (self.folder / f"{mark}-read").touch()
        except asyncio.CancelledError:
            (self.folder / f"{mark}-cancelled").touch()
            raise
        return [total, self.context.attempt]


class Served(NamedTuple):
    running: Any
    address: str
    folder: Path

    def begun(self, mark: str) -> int:
        path = self.folder / f"{mark}-begun"
        return len(path.read_text()) if path.exists() else 0

    def kill(self) -> None:
        os.kill(worker_of(self.running, "mortal")["pid"], signal.SIGKILL)


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with TemporaryDirectory(prefix="sw-", dir="/tmp") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLABWIRE_RUN_DIR", f"{folder}/run")
        graph = graph_of_streams()
        graph.expose(graph.add(Mortal, folder=folder).sum)
        with graph.run(listen="tcp://127.0.0.1:*", drain_timeout_s=0.1) as running:
            with Control(running.name) as control:
                address = str(control.request(OpenGateway())["listen"][0])
            yield Served(running, address, Path(folder))


@pytest.fixture
def client(served: Served) -> Iterator[slabwire.Client]:
    with slabwire.connect(served.address) as client:
        client.call("adder.forget")
        yield client


# -- deaths ------------------------------------------------------------------------------------------------------------


def test_a_handler_that_was_killed_before_any_item_was_taken_begins_again(
    served: Served, client: slabwire.Client
) -> None:
    may_go = threading.Event()

    def numbers() -> Iterator[int]:
        may_go.wait()
        yield from range(1000)

    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(client.call, "mortal.sum", numbers(), mark="early")
        wait_until(lambda: served.begun("early") == 1)
        served.kill()
        wait_until(lambda: served.begun("early") == 2)
        may_go.set()
        assert call.result() == [sum(range(1000)), 2]


def test_a_handler_that_was_killed_behind_its_first_item_is_interrupted(
    served: Served, client: slabwire.Client
) -> None:
    may_go = threading.Event()
    closed = []

    def numbers() -> Iterator[int]:
        try:
            yield 1
            may_go.wait()
            yield from range(1 << 62)
        finally:
            closed.append(True)

    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(client.call, "mortal.sum", numbers(), mark="late", timeout_s=None)
        wait_until(lambda: (served.folder / "late-read").exists())
        before = worker_of(served.running, "mortal")["restarts"]
        served.kill()
        wait_until(lambda: worker_of(served.running, "mortal")["restarts"] > before)
        may_go.set()
        with pytest.raises(slabwire.Interrupted, match="mortal died in the middle of the stream that it was sent"):
            call.result()
    assert closed == [True]
    assert served.begun("late") == 1
    assert client.call("mortal.sum", range(1000), mark="then") == [sum(range(1000)), 1]


@pytest.mark.parametrize("how", ["bye", "reset"])
def test_the_handler_of_a_client_that_vanishes_is_cancelled(served: Served, client: slabwire.Client, how: str) -> None:
    with Bare(served.address) as bare:
        bare.shake_hands()
        bare.send(kind="hello")
        bare.send({"mark": how}, kind="call", id=1, port="mortal.sum", sends=True)
        wait_until(lambda: served.begun(how))
        bare.wait_for(msgpack.packb("kind") + msgpack.packb("credit"))
        bare.send(7, kind="item", id=1)
        wait_until(lambda: (served.folder / f"{how}-read").exists())
        if how == "bye":
            bare.send(kind="bye")
        else:
            bare.break_off()
        assert wait_until(lambda: (served.folder / f"{how}-cancelled").exists())
    assert client.call("adder.sum", range(100)) == sum(range(100))


def test_a_client_that_is_closed_ends_its_streams(served: Served) -> None:
    async def main() -> None:
        closed = asyncio.Event()

        async def numbers() -> AsyncIterator[int]:
            try:
                yield 1
                await asyncio.sleep(3600)
            finally:
                closed.set()

        async with slabwire.connect_async(served.address) as leaving:
            call = asyncio.create_task(leaving.call("mortal.sum", numbers(), mark="closed", timeout_s=None))
            while not (served.folder / "closed-read").exists():
                await asyncio.sleep(0.01)
        with pytest.raises(ClientClosed):
            await call
        await closed.wait()

    asyncio.run(main())
    assert wait_until(lambda: (served.folder / "closed-cancelled").exists())


# -- clients that break the rules --------------------------------------------------------------------------------------


class Raw:
    """A client of pyzmq and msgpack alone."""

    def __init__(self, address: str) -> None:
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.RCVTIMEO, 30_000)
        self.socket.connect(address)
        self.send(None, kind="hello")
        assert self.receive()[0] == {"version": 1, "kind": "welcome", "sends": True}

    def send(self, payload: Any, *tensors: bytes, **head: Any) -> None:
        packed = payload if isinstance(payload, bytes) else msgpack.packb(payload)
        self.socket.send_multipart([msgpack.packb({"version": 1, **head}), packed, *tensors])

    def call(self, port: str, number: int = 1, **fields: Any) -> None:
        """One that sends a stream, once its handler has begun."""
        self.send(fields, kind="call", id=number, port=port, sends=True)
        assert self.receive()[0] == {"version": 1, "kind": "credit", "id": number, "credit": 64}

    def items(self, *values: Any, number: int = 1) -> None:
        for each in values:
            self.send(each, kind="item", id=number)

    def receive(self) -> tuple[dict[str, Any], Any]:
        head, payload, *_ = self.socket.recv_multipart()
        return msgpack.unpackb(head), msgpack.unpackb(payload)

    def answer(self) -> tuple[dict[str, Any], Any]:
        """What comes behind all credit."""
        while (answer := self.receive())[0]["kind"] == "credit":
            pass
        return answer

    def error(self) -> tuple[int, str, str]:
        """The call, the code, the text."""
        head, text = self.answer()
        assert head["kind"] == "error"
        return head.get("id", 0), head["code"], text

    def close(self) -> None:
        self.socket.close()
        self.context.term()


@pytest.fixture
def raw(served: Served) -> Iterator[Raw]:
    raw = Raw(served.address)
    yield raw
    raw.close()


def test_a_stream_is_sent_as_the_document_says(raw: Raw, client: slabwire.Client) -> None:
    raw.call("adder.sum", scale=2)
    raw.items(*range(64))
    assert raw.receive()[0]["credit"] in (32, 64)  # as many as were read by then
    raw.items(*range(64, 70))
    raw.send(None, kind="end", id=1)
    assert raw.answer() == ({"version": 1, "kind": "reply", "id": 1}, 2 * sum(range(70)))
    raw.items(1, 2)  # they were on their way
    raw.send(None, kind="end", id=1)
    raw.call("adder.caught")
    raw.send("broke off", kind="error", id=1, code="edge_full")
    assert raw.error() == (1, "edge_full", "broke off")
    assert client.call("adder.over") == ["EdgeFull: broke off"]


def test_what_the_gateway_has_let_go_is_told(raw: Raw) -> None:
    raw.call("adder.sizes")
    described = msgpack.packb(msgpack.ExtType(1, msgpack.packb([0, "uint8", [3 * MIB]])))
    for _ in range(3):
        raw.send(described, bytes(3 * MIB), kind="item", id=1)
        head, _ = raw.receive()
        assert (head["kind"], head["nbytes"]) == ("credit", 3 * MIB + len(described))
    raw.send(None, kind="end", id=1)
    assert raw.answer()[1] == 9 * MIB


@pytest.mark.parametrize(
    ("call", "why"),
    [
        ({"port": "adder.sum"}, "adder.sum takes a stream in 'numbers', and this client sends none"),
        ({"port": "adder.twice", "sends": True}, "adder.twice takes no stream, and the call says that it sends one"),
        ({"port": "adder.sum", "sends": True, "key": "k"}, "has no idempotency_key"),
        ({"port": "adder.each", "sends": True, "stream": True, "numbers": 1}, "there is no field 'numbers'"),
        ({"port": "adder.sum", "sends": True, "numbers": [1]}, "'numbers' is a stream, which comes behind the call"),
        ({"port": "adder.each", "sends": True}, "adder.each answers with a stream"),
    ],
)
def test_a_call_that_does_not_fit_its_port_is_answered_in_words(raw: Raw, call: dict[str, Any], why: str) -> None:
    head = {name: value for name, value in call.items() if name != "numbers"}
    raw.send({name: call[name] for name in call if name == "numbers"}, kind="call", id=1, **head)
    number, code, text = raw.error()
    assert (number, code) == (1, "bad_message")
    assert why in text
    raw.items(1)  # of no call
    raw.call("adder.sum")
    raw.items(1)
    raw.send(None, kind="end", id=1)
    assert raw.receive()[1] == 1


@pytest.mark.parametrize(
    ("lie", "why"),
    [
        ("early", "sends more than the 0 items that it may"),
        ("too many", "sends more than the 64 items that it may"),
        ("behind the end", "sends more of a stream that has ended"),
        ("unasked", "the call 9 sends no stream"),
        ("too large", "at most 268435456 are taken"),
    ],
)
def test_a_client_that_lies_is_turned_away_with_all_its_calls(
    served: Served, client: slabwire.Client, raw: Raw, lie: str, why: str
) -> None:
    raw.call("adder.never_reads", mark="lied")
    match lie:
        case "early":
            for number in range(10, 26):  # one of them comes before its call is granted anything
                raw.send({}, kind="call", id=number, port="adder.never_reads", sends=True)
                raw.items(1, number=number)
        case "too many":
            raw.items(*range(65))
        case "behind the end":
            raw.items(1)
            raw.send(None, kind="end", id=1)
            raw.send(None, kind="error", id=1)
        case "unasked":
            raw.send({"n": 1}, kind="call", id=9, port="asker.ask")
            raw.items(1, number=9)
        case "too large":
            raw.send(None, bytes(130 * MIB), bytes(130 * MIB), kind="item", id=1)
    number, code, text = raw.error()
    assert (number, code) == (0, "protocol")
    assert why in text
    raw.items(1)
    raw.send({}, kind="call", id=3, port="adder.over")
    assert raw.error()[:2] == (0, "disconnected")
    assert wait_until(lambda: "lied" in client.call("adder.over"))
    assert served.running.status()["gateway"]["restarts"] == 0


@pytest.mark.parametrize("item", [b"\xc1", b"", msgpack.packb("x" * (16 * MIB))], ids=["garbage", "empty", "large"])
def test_an_item_that_is_no_value_ends_its_call_alone(raw: Raw, item: bytes) -> None:
    raw.call("adder.sum")
    raw.call("adder.sum", number=2)
    raw.items(1, item, 3)
    assert raw.error()[:2] == (1, "bad_message")
    raw.items(1, 2, number=2)
    raw.send(None, kind="end", id=2)
    assert raw.receive() == ({"version": 1, "kind": "reply", "id": 2}, 3)


def test_items_of_unknown_calls_are_let_go(raw: Raw) -> None:
    for each in range(1000):
        raw.items(bytes(1000), number=1000 + each)
    raw.call("adder.sum", number=7)
    raw.send(None, kind="cancel", id=7)
    raw.items(1, number=7)
    raw.call("adder.sum", number=7)
    raw.items(2, number=7)
    raw.send(None, kind="end", id=7)
    assert raw.receive()[1] == 2


def test_what_does_not_fit_the_window_waits_at_the_client(client: slabwire.Client) -> None:
    """A window of these would be four times what the gateway keeps for one client."""
    sizes = [int(client.call("adder.sizes", (np.full(2 * MIB, k) for k in range(n)))) for n in (1, 12)]
    assert sizes == [16 * MIB, 12 * 16 * MIB + sum(range(12))]


def test_large_arrays_that_nobody_reads_stay_with_their_client(served: Served, client: slabwire.Client) -> None:
    async def main() -> None:
        pulled: list[int] = []

        def large() -> Iterator[Any]:
            for each in range(64):
                pulled.append(each)
                yield np.full(MIB, each)

        async with slabwire.connect_async(served.address) as other:
            calls = [asyncio.create_task(other.call("adder.never_reads", large())) for _ in range(4)]
            while len(pulled) < 4:
                await asyncio.sleep(0.01)
            assert await other.call("adder.sizes", (np.full(MIB, k) for k in range(8))) == 64 * MIB + sum(range(8))
            assert pulled == [0] * 4
            for each in calls:
                each.cancel()
            await asyncio.wait(calls)

    asyncio.run(main())
    wait_until(lambda: len(client.call("adder.over")) == 4)


def test_a_buffer_may_be_used_again_for_the_next_item(served: Served) -> None:
    buffer = np.zeros(100_000)

    def counted() -> Iterator[Any]:
        for each in range(100):
            buffer[0] = each
            yield buffer

    async def main() -> Any:
        async with slabwire.connect_async(served.address) as client:
            return await client.call("adder.sizes", counted())

    with slabwire.connect(served.address) as client:
        assert client.call("adder.sizes", counted()) == 100 * buffer.nbytes + sum(range(100))
    assert asyncio.run(main()) == 100 * buffer.nbytes + sum(range(100))
