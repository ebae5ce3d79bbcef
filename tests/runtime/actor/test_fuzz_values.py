"""Bytes that no correct sender makes: whoever reads them says what is wrong, and goes on."""

from __future__ import annotations

import contextlib
import random
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
import zmq
from hypothesis import given, seed, settings
from hypothesis import strategies as st

import slabwire
from children import in_a_child
from edge import Edge
from slabwire import Actor, Graph
from slabwire.runtime.clients.control import Control
from slabwire.runtime.control.verbs import OpenGateway, Status
from slabwire.runtime.message.encoding import encode
from slabwire.runtime.message.payload import Payload
from slabwire.runtime.remote.frame_codec import pack_value, unpack_value
from slabwire.shm.errors import MessageError
from slabwire.shm.pool import Pool
from slabwire.shm.tensor import description_of
from values_table import described

UNITS = ["Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns", "ps", "fs", "as", "generic", "μs", "B", ""]
WORDS = [
    "float32",
    "bfloat16",
    "int4",
    "object",
    "str",
    "void",
    "float128",
    "longdouble",
    "finfo",
    "datetime64",
    "bool_",
]
LITERAL = [
    "i4,f8",
    "(2,)f4",
    "f4, (2)i8",
    "O",
    "|O8",
    "T",
    "V0",
    "<U0",
    "S0",
    "<V2147483648",
    "{'names':['a']}",
    "?",
    "",
]
numbers = st.integers(0, 1 << 33) | st.sampled_from([0, 1, 2, 25, 1000, (1 << 31) - 1, 1 << 31])
brackets = st.builds(
    lambda number, unit, divisor: f"[{number}{unit}{divisor}]",
    st.just("") | numbers | st.just("00") | st.just("-1"),
    st.sampled_from(UNITS),
    st.just("") | st.just("/0") | st.just("/7"),
)
times = st.builds(
    lambda order, kind, size, bracket: order + kind + size + bracket,
    st.sampled_from(["", "<", ">", "|", "="]),
    st.sampled_from("mM"),
    st.sampled_from(["", "8", "4"]),
    brackets | st.just(""),
)
others = st.builds(
    lambda order, kind, size: order + kind + size,
    st.sampled_from(["", "<", ">", "|", "="]),
    st.sampled_from("?bBhHiIlLqQefdgFDGSaUVcOpPTmM"),
    st.just("") | numbers.map(str) | st.sampled_from(["1", "2", "4", "8", "16", "32"]),
)
dtype_texts = times | others | st.sampled_from(WORDS + LITERAL) | st.text(max_size=12)


def with_tensor(text: str, shape: Any, data: bytes) -> bytes:
    packed: bytes = msgpack.packb(msgpack.ExtType(1, msgpack.packb([None, text, shape, data])))
    return packed


def receive_dtype(text: str) -> None:
    """Every reader of dtypes, with one and with no element."""
    name = text.encode()
    for shape, nbytes in (([1], 8), ([0], 0), ([2, 0], 0), ([1], 16)):
        with contextlib.suppress(MessageError):
            described(unpack_value([with_tensor(text, shape, bytes(nbytes))]))
        head = struct.pack("<BBBxI", len(name) & 255, len(shape), 1, nbytes)
        with contextlib.suppress(MessageError):
            description_of(head + name + struct.pack(f"<{1 + len(shape)}q", 0, *shape))


def send_dtype(text: str, pool: Pool) -> None:
    """Every sender of arrays, where numpy makes one of that dtype and lives."""
    if "/" in text:  # which numpy itself may die of
        return
    try:
        dtype = np.dtype(text)
        arrays = [
            np.ndarray((count,), dtype, bytes(count * dtype.itemsize)) for count in (0, 1, 40) if dtype.itemsize < 99
        ]
    except Exception:  # numpy raises what it likes
        return
    for array in arrays:
        encode(array, is_fields=False)
        for send in (lambda value: Payload(value, pool).close(), lambda value: unpack_value(pack_value(value))):
            with contextlib.suppress(MessageError):
                send([array])


def fuzz_dtypes(dice: random.Random) -> None:
    edge = Edge()
    pool = edge.pool(edge.producer())

    @seed(dice.getrandbits(32))
    @settings(max_examples=300, deadline=None, database=None)
    @given(st.lists(dtype_texts, min_size=1, max_size=4))
    def run(texts: list[str]) -> None:
        for text in texts:
            receive_dtype(text)
            send_dtype(text, pool)

    run()


def test_no_text_of_a_dtype_ends_its_reader_or_its_sender() -> None:
    """Many of one process, since what one leaves in a cache is compared with the next."""
    in_a_child(fuzz_dtypes, seed=1)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_no_text_of_a_dtype_ends_its_reader_or_its_sender_however_many() -> None:
    for number in range(100, 130):
        in_a_child(fuzz_dtypes, number)


def steps_of_nothing(_: random.Random) -> None:
    edge = Edge()
    pool = edge.pool(edge.producer())
    for text in ("m8[us]", "m8[0us]", "m8[us]", "M8[s]", "M8[0Y]", "m8[0generic]"):
        send_dtype(text, pool)
        receive_dtype(f"<{text}")
        if "0" in text[3:]:
            with pytest.raises(MessageError):
                pool.loan((9,), text)
            with pytest.raises(MessageError, match="none"):
                unpack_value([with_tensor(f"<{text}", [1], bytes(8))])


def test_dtypes_that_numpy_dies_of_are_refused_on_both_sides() -> None:
    in_a_child(steps_of_nothing, seed=1)


# -- a gateway -------------------------------------------------------------------------------------------------------


class Target(Actor):
    def total(self, values: np.ndarray) -> float:
        return float(values.sum())

    def echo(self, value: Any) -> Any:
        return value


class Hostile:
    """Speaks to a gateway in bytes of its own. What is turned out says hello again."""

    def __init__(self, address: str) -> None:
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.connect(address)
        self.hello()
        self.number = 0

    def hello(self) -> None:
        self.socket.send_multipart([msgpack.packb({"version": 1, "kind": "hello"}), b"\xc0"])
        while self.receive()[0].get("kind") != "welcome":
            pass

    def receive(self) -> tuple[dict[str, Any], Any]:
        assert self.socket.poll(20_000), "the gateway is silent"
        head, payload, *_ = self.socket.recv_multipart()
        return msgpack.unpackb(head), msgpack.unpackb(payload, ext_hook=msgpack.ExtType, strict_map_key=False)

    def call(self, payload: bytes, port: str = "target.echo", *tensors: bytes) -> tuple[dict[str, Any], Any]:
        """The answer to a call with that payload."""
        self.number += 1
        head = {"version": 1, "kind": "call", "id": self.number, "port": port}
        self.socket.send_multipart([msgpack.packb(head), payload, *tensors])
        while True:
            answer, said = self.receive()
            if answer.get("id") == self.number:
                return answer, said
            assert answer.get("kind") == "ping", (answer, said)

    def close(self) -> None:
        self.socket.close()
        self.context.term()


class Attacked:
    """A graph that runs, its gateway, an honest client of it and one that is not."""

    def __init__(self, name: str) -> None:
        with Control(name) as control:
            found = control.request(OpenGateway())
        self.name = name
        self.pid = found["pid"]
        self.honest = slabwire.connect(found["address"])
        self.hostile = Hostile(found["address"])

    def check(self) -> None:
        """The honest client is answered, by the same gateway, and the same worker."""
        assert self.honest.call("target.echo", {"n": 1}, timeout_s=20) == {"n": 1}
        with Control(self.name) as control:
            assert control.request(OpenGateway())["pid"] == self.pid
            assert [each["restarts"] for each in control.request(Status())["workers"]] == [0]

    def close(self) -> None:
        self.hostile.close()
        self.honest.close()


@pytest.fixture
def attacked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Attacked]:
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(tmp_path / "run"))
    graph = Graph("attacked")
    target = graph.add(Target)
    graph.expose(target.echo, target.total)
    with graph.run() as running:
        found = Attacked(running.name)
        yield found
        found.close()


def fields(value: bytes, name: bytes = b"\xa5value") -> bytes:
    """A map of one field, whose value is msgpack already."""
    return b"\x81" + name + value


def tensors(*parts: Any) -> bytes:
    packed: bytes = msgpack.packb(msgpack.ExtType(1, msgpack.packb(list(parts))))
    return fields(packed)


# What is sent as the payload of a call, and what the error says.
PAYLOADS: dict[str, tuple[bytes, str]] = {
    "objects": (tensors(None, "O", [1], bytes(8)), "'O'"),
    "objects with a size": (tensors(None, "|O8", [1], bytes(8)), "which is none"),
    "a named object": (tensors(None, "object", [1], bytes(8)), "holds Python objects"),
    "void of no bytes": (tensors(None, "|V0", [3], b""), "no bytes"),
    "text of no bytes": (tensors(None, "<U0", [1 << 40], b""), "no bytes"),
    "a huge element": (tensors(None, "<U536870911", [1], b"1234"), "has 2147483644 bytes, but 4 came"),
    "a larger one": (tensors(None, "<U5368709110", [1], b"1234"), "knows the dtype '<U5368709110'"),
    "a structure": (tensors(None, "i4,f8", [1], bytes(12)), "which is none"),
    "a part": (tensors(None, "(2,)f4", [1], bytes(8)), "which is none"),
    "steps of 0": (
        fields(
            msgpack.packb(
                [msgpack.ExtType(1, msgpack.packb([None, each, [1], bytes(8)])) for each in ("<m8[s]", "<m8[0s]")]
            )
        ),
        "'<m8[0s]', which is none",
    ),
    "a divisor": (tensors(None, "<m8[s/0]", [1], bytes(8)), "which is none"),
    "not the name": (tensors(None, "m8", [1], bytes(8)), "numpy calls '<m8'"),
    "another order": (tensors(None, "=f4", [1], bytes(4)), "numpy calls 'float32'"),
    "not numpy's": (tensors(None, "finfo", [1], bytes(4)), "finfo"),
    "no text": (tensors(None, 4, [1], bytes(4)), "neither as"),
    "a long text": (tensors(None, "f" * 100_000, [1], bytes(4)), "which is none"),
    "negative": (tensors(None, "float32", [-1, -4], bytes(16)), "impossible shape"),
    "overflow": (tensors(None, "float32", [1 << 62, 4], b""), "impossible shape"),
    "larger than memory": (tensors(None, "uint8", [0, *[1 << 47] * 3], b""), "cannot be unpacked"),
    "a million axes": (tensors(None, "float32", [1] * 1_000_000, bytes(4)), "cannot be unpacked"),
    "too short": (tensors(None, "float32", [2], bytes(7)), "has 8 bytes, but 7 came"),
    "no such frame": (tensors(5, "float32", [2]), "neither as"),
    "a negative frame": (tensors(-1, "float32", [2]), "neither as"),
    "an unknown extension": (fields(msgpack.packb(msgpack.ExtType(9, b"x"))), "unknown code 9"),
    "a tensor of nothing": (fields(msgpack.packb(msgpack.ExtType(1, b""))), "cannot be unpacked"),
    "a tensor in a tensor": (tensors(None, msgpack.ExtType(1, b""), [1], b""), "neither as"),
    "announced in a tensor": (
        fields(msgpack.packb(msgpack.ExtType(1, b"\xdd\x00\x00\xff\xff" * 300 + bytes(1 << 20)))),
        "cannot be unpacked",
    ),
    "2**32 items": (fields(b"\xdd\xff\xff\xff\xff"), "cannot be unpacked"),
    "2**32 pairs": (fields(b"\xdf\xff\xff\xff\xff"), "cannot be unpacked"),
    "2**32 bytes": (fields(b"\xc6\xff\xff\xff\xff"), "cannot be unpacked"),
    "announced at every level": (fields(b"\xdd\x00\x0f\xff\xff" * 500 + bytes(1 << 20)), "cannot be unpacked"),
    "65 levels": (fields(b"\x91" * 64 + b"\x90"), "is nested deeper than 64 levels"),
    "1000 levels": (fields(b"\x91" * 1000 + b"\x90"), "nested"),
    "100000 levels": (fields(b"\x91" * 100_000 + b"\x90"), "cannot be unpacked"),
    "a key that is NaN": (fields(b"\x81\xcb\x7f\xf8\0\0\0\0\0\0\x01"), "cannot be unpacked"),
    "a key of bytes": (fields(b"\x81\xc4\x01a\x01"), "has the key b'a' of type bytes; keys must be str"),
    "a field of bytes": (fields(b"\x01", b"\xc4\x05value"), "no field"),
    "a key that is a list": (fields(b"\x81\x90\x01"), "cannot be unpacked"),
    "no UTF-8": (fields(b"\xa2\xed\xa0"), "cannot be unpacked"),
    "no map": (b"\x01", "must be a map"),
    "nothing": (b"", "cannot be unpacked"),
    "reserved": (b"\xc1", "cannot be unpacked"),
    "more behind": (fields(b"\x01") + b"\x01", "cannot be unpacked"),
}


def test_whatever_a_client_sends_is_answered_with_its_cause(attacked: Attacked) -> None:
    wrong = []
    for name, (payload, cause) in PAYLOADS.items():
        head, said = attacked.hostile.call(payload)
        if head.get("code") != "bad_message" or cause not in said:
            wrong.append(f"{name}: {head}, {str(said)[:200]!r} does not say {cause!r}")
        head, _ = attacked.hostile.call(payload.replace(b"\xa5value", b"\xa6values"), "target.total")
        if head.get("code") != "bad_message":
            wrong.append(f"{name} for another port: {head}")
    assert not wrong, "\n".join(wrong)
    twice = attacked.hostile.call(b"\x82\xa5value\x01\xa5value\x02")
    assert twice == ({"version": 1, "kind": "reply", "id": attacked.hostile.number}, 2)  # as of any map, the last
    attacked.check()


def test_a_payload_is_read_only_where_there_is_a_port_for_it(attacked: Attacked) -> None:
    for payload, _ in PAYLOADS.values():
        assert attacked.hostile.call(payload, "target.ehco")[0]["code"] == "unknown_port"
    attacked.check()


def _mutated(dice: random.Random, payload: bytes) -> bytes:
    changed = bytearray(payload[: 1 << 12])
    for _ in range(dice.randrange(1, 4)):
        if changed:
            changed[dice.randrange(len(changed))] = dice.choice(
                [0, 1, 0x7F, 0x80, 0xC1, 0xC7, 0xDD, 0xFF, dice.randrange(256)]
            )
    return bytes(changed[: dice.randrange(len(changed) + 1)]) if dice.random() < 0.2 else bytes(changed)


def attack(attacked: Attacked, dice: random.Random, calls: int) -> None:
    """Payloads a little beside those that are right, and those that are not."""
    right = [
        b"".join(pack_value({"value": each})[:1])
        for each in (1, "text", [1.5, {"a": None}], np.arange(3), np.zeros(3, "M8[ns]"))
    ]
    for _ in range(calls):
        payload = _mutated(dice, dice.choice([*right, *(each for each, _ in PAYLOADS.values())]))
        head, said = attacked.hostile.call(payload, "target.echo", *[dice.randbytes(8)] * dice.randrange(3))
        assert head["kind"] == "reply" or (head["code"] == "bad_message" and said), (payload, head, said)
    attacked.check()


def test_damaged_payloads_are_answered(attacked: Attacked) -> None:
    attack(attacked, random.Random(1), 300)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_damaged_payloads_are_answered_however_many(attacked: Attacked) -> None:
    for number in range(100, 120):
        attack(attacked, random.Random(number), 2000)
