"""A client written from docs/wire.md alone: pyzmq and msgpack, nothing of slabwire but the graph and its keys."""

from __future__ import annotations

import asyncio
import re
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgpack
import pytest
import zmq
import zmq.auth

import slabwire
from slabwire.runtime.clients.control import Control
from slabwire.runtime.control.verbs import OpenGateway

DOCUMENT = (Path(__file__).resolve().parents[3] / "docs" / "wire.md").read_text()


class Page(slabwire.Actor):
    """What the stranger calls."""

    def it(self, value: object) -> object:
        return value

    def upto(self, n: int) -> Iterator[int]:
        yield from range(n)

    def key(self) -> str | None:
        return self.context.idempotency_key

    def __init__(self) -> None:
        self._count = 0
        self._go = asyncio.Event()

    async def count(self, waits: bool = False, fails: bool = False) -> int:
        self._count += 1
        if waits:
            await self._go.wait()
        if fails:
            raise ValueError(str(self._count))
        return self._count

    def counted(self) -> int:
        return self._count

    async def go(self) -> None:
        self._go.set()


class Stranger:
    """Speaks the protocol as the document says."""

    def __init__(self, address: str, keys: Path | None = None) -> None:
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        if keys is not None:
            own, server = (zmq.auth.load_certificate(keys / name) for name in ("client.key_secret", "server.key"))
            self.socket.curve_publickey, self.socket.curve_secretkey = own
            self.socket.curve_serverkey = server[0]
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.IMMEDIATE, 1)
        self.socket.setsockopt(zmq.RCVTIMEO, 30_000)
        self.socket.connect(address)

    def send(self, payload: Any, *tensors: bytes, **head: Any) -> None:
        self.socket.send_multipart([msgpack.packb({"version": 1, **head}), msgpack.packb(payload), *tensors])

    def receive(self) -> tuple[dict[str, Any], Any, list[bytes]]:
        while True:
            head, payload, *tensors = self.socket.recv_multipart()
            unpacked = msgpack.unpackb(head)
            assert unpacked["version"] == 1
            if unpacked["kind"] != "ping":
                return unpacked, msgpack.unpackb(payload), tensors

    def hello(self) -> Any:
        self.send(None, kind="hello")
        head, welcome, _ = self.receive()
        assert head == {"version": 1, "kind": "welcome", "sends": True}
        return welcome

    def close(self) -> None:
        self.socket.close()
        self.context.term()


@pytest.fixture(scope="module")
def doors() -> Iterator[tuple[str, str, Path]]:
    """The gateway's address for this host, the one for all hosts, and the folder of a client that it knows."""
    graph = slabwire.Graph("page")
    page = graph.add(Page)
    graph.expose(page.it, page.upto, page.key, page.count, page.counted, page.go)
    with TemporaryDirectory(prefix="sw-", dir="/tmp") as folder, pytest.MonkeyPatch.context() as patch:
        keys = [sys.executable, "-m", "slabwire", "keys"]
        subprocess.run([*keys, "new", f"{folder}/server"], check=True, stdout=subprocess.DEVNULL)
        known = [*keys, "add", f"{folder}/server", "someone", "--output", f"{folder}/client"]
        subprocess.run(known, check=True, stdout=subprocess.DEVNULL)
        patch.setenv("SLABWIRE_RUN_DIR", f"{folder}/run")
        patch.setenv("SLABWIRE_KEYS", f"{folder}/server")
        with graph.run(listen="tcp://lo:*"), Control("page") as control:
            found = control.request(OpenGateway())
            yield found["address"], found["listen"][0], Path(folder) / "client"


@pytest.fixture
def address(doors: tuple[str, str, Path]) -> str:
    return doors[0]


@pytest.fixture
def stranger(address: str) -> Iterator[Stranger]:
    opened = Stranger(address)
    yield opened
    opened.close()


def bytes_of(example: str) -> bytes:
    """The hex digits of a block of the document, without what stands beside them."""
    lines = (re.match(r"\s*((?:[0-9a-f]{2} )*[0-9a-f]{2})(?:\s{2,}|$)", line) for line in example.splitlines())
    return b"".join(bytes.fromhex(found[1]) for found in lines if found)


def test_the_examples_are_what_msgpack_makes_of_them() -> None:
    blocks = re.findall(r"```\n(.*?)```", DOCUMENT, re.DOTALL)
    head, items, tensor = (bytes_of(each) for each in blocks if re.match(r"\s*[0-9a-f]{2} ", each))
    expected = {"version": 1, "kind": "call", "id": 1, "port": "echo.it", "timeout_s": 5.0}
    assert head == msgpack.packb(expected)
    assert items == msgpack.packb([[[1, 2, False], [2, 1, True]], [7, 8, 9]])
    inside = msgpack.packb([None, "float32", [2], struct.pack("<2f", 1.0, 2.0)])
    assert tensor == msgpack.packb(msgpack.ExtType(1, inside))


def test_the_welcome_describes_the_ports(stranger: Stranger) -> None:
    welcome = stranger.hello()
    assert welcome["graph"] == "page"
    assert welcome["limits"] == {"calls": 1024, "message_nbytes": 268435456, "credit": 1024}
    anything: dict[str, Any] = {"kind": "any", "text": "Any", "dtypes": [], "dims": None, "optional": False}
    whole = {**anything, "kind": "int", "text": "int"}
    assert welcome["ports"][:2] == [
        {
            "port": "page.it",
            "summary": "",
            "stream": False,
            "fields": [{"name": "value", "required": True, "type": anything}],
            "answer": anything,
        },
        {
            "port": "page.upto",
            "summary": "",
            "stream": True,
            "fields": [{"name": "n", "required": True, "type": whole}],
            "answer": whole,
        },
    ]


def test_a_call_is_answered(stranger: Stranger) -> None:
    stranger.hello()
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    stranger.send({"value": [1, {"a": None}]}, kind="call", id=1, port="page.it", timeout_s=5.0, traceparent=trace)
    assert stranger.receive() == ({"version": 1, "kind": "reply", "id": 1}, [1, {"a": None}], [])


def test_a_key_reaches_the_handler(stranger: Stranger) -> None:
    stranger.hello()
    stranger.send({}, kind="call", id=1, port="page.key", key="order 7")
    assert stranger.receive() == ({"version": 1, "kind": "reply", "id": 1}, "order 7", [])
    stranger.send({}, kind="call", id=2, port="page.key")
    assert stranger.receive()[1] is None
    stranger.send({}, kind="call", id=3, port="page.key", key="ä" * 65)
    assert stranger.receive()[0] == {"version": 1, "kind": "error", "id": 3, "code": "bad_message"}


def ask(stranger: Stranger, number: int, key: str, port: str = "page.count", **fields: Any) -> Any:
    """What a call with a key gives: the value, or the code of its error."""
    stranger.send(fields, kind="call", id=number, port=port, **({"key": key} if key else {}))
    head, value, _ = stranger.receive()
    assert head["id"] == number
    return head.get("code", value)


def test_an_answer_that_was_given_is_given_again(stranger: Stranger, address: str) -> None:
    stranger.hello()
    before = ask(stranger, 1, "", port="page.counted")
    assert [ask(stranger, number, "pay 1") for number in (2, 3)] == [before + 1] * 2
    assert ask(stranger, 4, "pay 2") == before + 2
    assert ask(stranger, 5, "pay 1", waits=True) == "bad_message"
    other = Stranger(address)
    other.hello()
    assert ask(other, 1, "pay 1") == before + 1
    other.close()
    assert [ask(stranger, number, "fails", fails=True) for number in (6, 7)] == ["handler"] * 2
    assert ask(stranger, 8, "", port="page.counted") == before + 4


def test_what_has_begun_goes_on_without_its_client(stranger: Stranger, address: str) -> None:
    stranger.hello()
    before = ask(stranger, 1, "", port="page.counted")
    gone = Stranger(address)
    gone.hello()
    gone.send({"waits": True}, kind="call", id=1, port="page.count", key="pay 3")
    while ask(stranger, 2, "", port="page.counted") == before:
        pass
    gone.send(None, kind="bye")
    gone.close()
    stranger.send({"waits": True}, kind="call", id=3, port="page.count", key="pay 3")
    stranger.send({"waits": True}, kind="call", id=4, port="page.count", key="pay 3")
    stranger.send(None, kind="cancel", id=4)
    stranger.send({}, kind="call", id=5, port="page.go")
    answers = {head["id"]: value for head, value, _ in (stranger.receive(), stranger.receive())}
    assert answers == {3: before + 1, 5: None}
    assert ask(stranger, 6, "", port="page.counted") == before + 1


def test_with_its_keys_a_client_comes_in_from_anywhere(doors: tuple[str, str, Path]) -> None:
    _, address, keys = doors
    stranger = Stranger(address, keys)
    assert stranger.hello()["graph"] == "page"
    large = msgpack.ExtType(1, msgpack.packb([0, "uint8", [100, 100]]))
    stranger.send({"value": large}, bytes(10_000), kind="call", id=1, port="page.it", key="once")
    assert stranger.receive() == ({"version": 1, "kind": "reply", "id": 1}, large, [bytes(10_000)])
    stranger.close()


def test_tensors_travel_inside_and_beside(stranger: Stranger) -> None:
    stranger.hello()
    small = msgpack.ExtType(1, msgpack.packb([None, "float32", [2], struct.pack("<2f", 1.0, 2.0)]))
    large = msgpack.ExtType(1, msgpack.packb([0, "uint8", [100, 100]]))
    stranger.send({"value": [small, large]}, bytes(10_000), kind="call", id=2, port="page.it")
    head, (first, second), tensors = stranger.receive()
    assert head["kind"] == "reply"
    assert first == small
    assert msgpack.unpackb(second.data) == [0, "uint8", [100, 100]]
    assert tensors == [bytes(10_000)]


def test_items_come_against_credit(stranger: Stranger) -> None:
    stranger.hello()
    stranger.send({"n": 5}, kind="call", id=3, port="page.upto", stream=True, credit=2)
    assert [stranger.receive()[1] for _ in range(2)] == [0, 1]
    stranger.send({"value": "between"}, kind="call", id=4, port="page.it")
    assert stranger.receive()[1] == "between"  # no third item came before it
    stranger.send(None, kind="credit", id=3, credit=3)
    assert [stranger.receive()[1] for _ in range(3)] == [2, 3, 4]
    assert stranger.receive()[0] == {"version": 1, "kind": "end", "id": 3}


def test_a_cancelled_stream_is_silent_and_its_id_is_free_again(stranger: Stranger) -> None:
    stranger.hello()
    stranger.send({"n": 1_000_000}, kind="call", id=5, port="page.upto", stream=True, credit=1)
    assert stranger.receive()[1] == 0
    stranger.send(None, kind="cancel", id=5)
    stranger.send(None, kind="credit", id=5, credit=10)
    stranger.send({"value": 1}, kind="call", id=6, port="page.it")
    assert stranger.receive()[0] == {"version": 1, "kind": "reply", "id": 6}


@pytest.mark.parametrize(
    ("payload", "head", "code"),
    [
        ({}, {"port": "page.ti"}, "unknown_port"),
        ({}, {"port": "page.it"}, "bad_message"),
        ({"value": 1, "other": 2}, {"port": "page.it"}, "bad_message"),
        ([1], {"port": "page.it"}, "bad_message"),
        ({"n": 1}, {"port": "page.upto"}, "bad_message"),
        ({"value": msgpack.ExtType(1, b"\xc1")}, {"port": "page.it"}, "bad_message"),
        ({"value": msgpack.ExtType(9, b"")}, {"port": "page.it"}, "bad_message"),
        ({"n": 1_000_000}, {"port": "page.upto", "stream": True, "credit": 1024, "timeout_s": 0.001}, "deadline"),
    ],
)
def test_a_call_that_fails_has_a_code(stranger: Stranger, payload: Any, head: dict[str, Any], code: str) -> None:
    stranger.hello()
    stranger.send(payload, kind="call", id=7, **head)
    answer = stranger.receive()
    while answer[0]["kind"] == "item":
        answer = stranger.receive()
    assert (answer[0]["kind"], answer[0]["id"], answer[0]["code"]) == ("error", 7, code)
    assert isinstance(answer[1], str)
    assert f"`{code}`" in DOCUMENT
    stranger.send({"value": 1}, kind="call", id=8, port="page.it")
    assert stranger.receive()[0]["kind"] == "reply"


def test_another_version_is_refused_by_both_names(stranger: Stranger) -> None:
    stranger.socket.send_multipart([msgpack.packb({"version": 2, "kind": "hello"}), b"\xc0"])
    head, text, _ = stranger.receive()
    assert (head["kind"], head["code"]) == ("error", "protocol")
    assert "version 2" in text
    assert "version 1" in text


@pytest.mark.parametrize(
    "frames",
    [
        [b"\xc0"],
        [b"garbage", b"\xc0"],
        [b"", b""],
        [msgpack.packb({"version": 1, "kind": "call", "id": "one"}), b"\xc0"],
        [msgpack.packb({"version": 1, "kind": "call"}), b"\xc0"],
        [msgpack.packb({"version": 1, "kind": "hello"}), *[b"\xc0"] * 258],
        [bytes(5000), b"\xc0"],
    ],
)
def test_what_is_no_message_ends_the_conversation(stranger: Stranger, frames: list[bytes]) -> None:
    stranger.hello()
    stranger.socket.send_multipart(frames)
    head, text, _ = stranger.receive()
    assert (head["kind"], head["code"], "id" in head) == ("error", "protocol", False)
    assert text
    assert stranger.hello()["graph"] == "page"


def test_who_was_never_greeted_is_told_to_say_hello(stranger: Stranger) -> None:
    stranger.send({"value": 1}, kind="call", id=1, port="page.it")
    head, _, _ = stranger.receive()
    assert (head["kind"], head["code"]) == ("error", "disconnected")
    stranger.hello()
    stranger.send(None, kind="bye")
    stranger.send({"value": 1}, kind="call", id=1, port="page.it")
    assert stranger.receive()[0]["code"] == "disconnected"


def test_who_asks_whether_it_is_there_is_answered_unknown_or_known(stranger: Stranger) -> None:
    stranger.send(None, kind="ping", id=3)
    assert stranger.receive() == ({"version": 1, "kind": "pong", "id": 3}, None, [])
    stranger.hello()
    stranger.send(None, kind="ping")
    assert stranger.receive() == ({"version": 1, "kind": "pong"}, None, [])


def test_what_is_new_is_ignored(stranger: Stranger) -> None:
    stranger.hello()
    stranger.send(None, kind="dance", tempo=3)
    stranger.send(None, kind="cancel", id=99)
    stranger.send({"value": 1}, kind="call", id=1, port="page.it", mood="good")
    assert stranger.receive()[0]["kind"] == "reply"
