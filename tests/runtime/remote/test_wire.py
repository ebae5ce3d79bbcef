"""The protocol's bytes: what is packed comes back, and what nobody packed is an error, whatever it is."""

from __future__ import annotations

import contextlib
import struct
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slabwire.runtime.errors import Disconnected, MessageError, Overloaded, ProtocolError, SlabwireError, UnknownPort
from slabwire.runtime.message.header import Kind as RecordKind
from slabwire.runtime.remote import protocol as wire
from slabwire.runtime.remote.client_protocol import WINDOW, Packed, Session
from slabwire.runtime.remote.frame_codec import OWN_FRAME_ABOVE_NBYTES, pack_value, unpack_value
from slabwire.runtime.remote.protocol import Frame, FrameKind, Head, pack_head, trace_of, unpack_head

NIL = b"\xc0"
DTYPES = [
    *(
        "bool",
        "int8",
        "uint8",
        "int16",
        "uint16",
        "int32",
        "uint32",
        "int64",
        "uint64",
        "float16",
        "float32",
        "float64",
    ),
    *("complex64", "complex128", ">f4", ">i8", "<U5", "S7", "V16", "M8[ns]", "m8[us]"),
]
EXTENSIONS = [ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2, ml_dtypes.int4]


def back(value: Any) -> Any:
    return unpack_value(pack_value(value))


# -- heads -----------------------------------------------------------------------------------------------------------

heads = st.builds(
    Head,
    kind=st.sampled_from(list(FrameKind)) | st.text(min_size=1, max_size=20),
    id=st.integers(0, wire.LARGEST_ID),
    port=st.text(max_size=100),
    stream=st.booleans(),
    timeout_s=st.none() | st.floats(0, wire.LONGEST_TIMEOUT_S),
    credit=st.integers(0, wire.MOST_CREDIT),
    traceparent=st.text(max_size=60),
    code=st.text(max_size=40),
    key=st.text(max_size=40),
    not_begun=st.booleans(),
    items=st.booleans(),
    sends=st.booleans(),
    nbytes=st.integers(0, wire.LARGEST_ID),
)


@given(heads)
def test_a_head_comes_back(head: Head) -> None:
    assert unpack_head([pack_head(head), NIL]) == head


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        ([], "must be a map"),
        ({}, "no version"),
        ({"version": True, "kind": "call"}, "other side speaks version True"),
        ({"version": 1}, "says no kind"),
        ({"version": 1, "kind": 3}, "'kind' in the head of a message is a int"),
        ({"version": 1, "kind": "call", "id": -1}, "the id -1"),
        ({"version": 1, "kind": "call", "id": 1 << 63}, "the id"),
        ({"version": 1, "kind": "call", "id": True}, "'id' in the head of a message is a bool"),
        ({"version": 1, "kind": "call", "port": "p" * 2000}, "2000 characters"),
        ({"version": 1, "kind": "call", "timeout_s": float("nan")}, "a timeout of nan s"),
        ({"version": 1, "kind": "call", "timeout_s": -1.0}, "a timeout of -1.0 s"),
        ({"version": 1, "kind": "credit", "credit": 5000}, "a credit of 5000 items"),
        ({"version": 1, "kind": "credit", "nbytes": -1}, "-1 bytes are not from 0"),
        ({"version": 1, "kind": "call", "sends": 1}, "'sends' in the head of a message is a int"),
    ],
)
def test_a_wrong_head_is_refused_in_words(document: Any, complaint: str) -> None:
    with pytest.raises(ProtocolError, match=complaint):
        unpack_head([msgpack.packb(document), NIL])


def test_another_version_is_named_beside_ours() -> None:
    newer = msgpack.packb({"version": 7, "kind": "call"})
    with pytest.raises(ProtocolError, match=r"other side speaks version 7 .*this side version 1; update .* this side"):
        unpack_head([newer, NIL])
    older = msgpack.packb({"version": 0, "kind": "call"})
    with pytest.raises(ProtocolError, match="on that side"):
        unpack_head([older, NIL])


def test_what_a_newer_peer_adds_is_ignored() -> None:
    assert unpack_head([msgpack.packb({"version": 1, "kind": "dance", "tempo": [1]}), NIL]) == Head("dance")


def test_frames_are_counted_and_measured() -> None:
    head = pack_head(Head(FrameKind.CALL))
    for frames in ([], [head], [head, *[NIL] * (wire.MOST_TENSORS + 2)], [head + b" " * 5000, NIL]):
        with pytest.raises(ProtocolError):
            unpack_head(frames)
    large = np.empty(wire.LARGEST_MESSAGE_NBYTES + 1, np.uint8).data
    with pytest.raises(ProtocolError, match="at most"):
        unpack_head([head, large])


@given(st.lists(st.binary(max_size=300), max_size=4))
def test_any_frames_are_a_head_or_an_error(frames: list[bytes]) -> None:
    with contextlib.suppress(ProtocolError):
        unpack_head(frames)


def test_a_trace_is_read_or_not_there() -> None:
    assert trace_of("00-" + "ab" * 16 + "-" + "cd" * 8 + "-01") == (0xABABABABABABABAB, 0xABABABABABABABAB)
    for wrong in ("", "00-xyz", "00-" + "AB" * 16 + "-" + "cd" * 8 + "-01"):
        assert trace_of(wrong) == (0, 0)


# -- values ----------------------------------------------------------------------------------------------------------

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=30)
    | st.binary(max_size=600),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=10), inner, max_size=5),
    max_leaves=30,
)


@given(plain)
def test_a_plain_value_comes_back(value: Any) -> None:
    assert back(value) == value


@pytest.mark.parametrize("shape", [(), (1,), (0,), (3, 0, 2), (7, 5), (300, 40), (1,) * 32], ids=str)
@pytest.mark.parametrize("dtype", [*DTYPES, *EXTENSIONS], ids=str)
def test_tensors_of_every_dtype_come_back(dtype: Any, shape: tuple[int, ...]) -> None:
    dtype = np.dtype(dtype)
    array = np.zeros(shape, dtype)
    flat = np.random.default_rng(1).integers(0, 2, max(array.nbytes, 1), dtype=np.uint8)[: array.nbytes]
    array = flat.view(dtype).reshape(shape) if array.size else array
    (got,) = back([array])
    assert (got.dtype, got.shape) == (array.dtype, array.shape)
    assert got.tobytes() == array.tobytes()
    assert not got.flags.writeable
    assert got.flags.aligned


def test_large_tensors_travel_beside_the_payload_uncopied() -> None:
    image, small = np.arange(60_000, dtype=np.float32).reshape(100, 600), np.arange(4)
    payload, frame = pack_value({"image": image, "small": small, "again": [small]})
    assert len(payload) < 1000
    assert np.shares_memory(np.frombuffer(frame, np.uint8), image)
    got = unpack_value([payload, frame])
    assert np.shares_memory(got["image"], image)
    assert np.array_equal(got["image"], image)


def test_what_is_not_contiguous_is_copied() -> None:
    image = np.arange(60_000).reshape(100, 600)
    for view in (image.T, image[::2, ::-3], np.broadcast_to(image, (2, *image.shape)), np.asfortranarray(image)):
        assert np.array_equal(back(view), view)


def test_a_frame_that_lies_askew_is_copied() -> None:
    array = np.arange(1000, dtype=np.float64)
    payload, frame = pack_value(array)
    askew = memoryview(bytearray(b"x" + bytes(frame)))[1:]
    got = unpack_value([payload, askew])
    assert got.flags.aligned
    assert np.array_equal(got, array)


def test_more_tensors_than_frames_are_allowed_go_inside() -> None:
    arrays = [np.full(OWN_FRAME_ABOVE_NBYTES, each % 256, np.uint16) for each in range(wire.MOST_TENSORS + 5)]
    frames = pack_value(arrays)
    assert len(frames) == 1 + wire.MOST_TENSORS
    assert all(np.array_equal(*pair) for pair in zip(unpack_value(frames), arrays, strict=True))


@dataclass
class Point:
    x: int
    where: Any


def test_dataclasses_tuples_and_scalars_become_plain() -> None:
    assert back(Point(1, (2, np.float32(0.5)))) == {"x": 1, "where": [2, 0.5]}


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ({"a": [1, {2}]}, r"message\['a'\]\[1\] is a set"),
        ({"a": {3: 1}}, r"message\['a'\] has the key 3"),
        (1 << 70, "71 bits"),
        (np.array([object()]), "dtype object"),
        (np.zeros(2, [("a", "i4")]), "structured dtype"),
        (b"x" * (wire.LARGEST_PAYLOAD_NBYTES + 1), "put the bulk into numpy arrays"),
        (np.empty(wire.LARGEST_MESSAGE_NBYTES, np.uint8), "split it"),
    ],
    ids=["set", "key", "int", "object", "structured", "payload", "message"],
)
def test_what_cannot_be_sent_is_named(value: Any, complaint: str) -> None:
    with pytest.raises(MessageError, match=complaint):
        pack_value(value)


def tensor(*parts: Any) -> bytes:
    packed: bytes = msgpack.packb(msgpack.ExtType(1, msgpack.packb(list(parts))))
    return packed


@pytest.mark.parametrize(
    "payload",
    [
        tensor(0, "float32", [2]),
        tensor(None, "float32", [2], b"1234"),
        tensor(None, "float32", [-1, -1], b"1234"),
        tensor(None, "float32", [1 << 40, 1 << 40], b"1234"),
        tensor(None, "float32", [1.0], b"1234"),
        tensor(None, "float32", [1] * 33, b"1234"),
        tensor(None, "object", [1], b"12345678"),
        tensor(None, "O", [1], b"12345678"),
        tensor(None, "|O8", [1], b"12345678"),
        tensor(None, "f4,f4", [1], b"12345678"),
        tensor(None, "(2,)f4", [1], b"12345678"),
        tensor(None, "float", [1], b"12345678"),
        tensor(None, "finfo", [1], b"12345678"),
        tensor(None, "__name__", [1], b"12345678"),
        tensor(None, "<U0", [1], b""),
        tensor(None, "<V999999999", [1], b""),
        tensor("0", "float32", [1], b"1234"),
        tensor(),
        msgpack.packb(msgpack.ExtType(2, b"")),
        msgpack.packb(1) + b"x",
        msgpack.packb({1: 2}),
        b"\xc1",
        b"",
    ],
)
def test_a_wrong_payload_is_an_error(payload: bytes) -> None:
    with pytest.raises(MessageError):
        unpack_value([payload])


def test_a_timestamp_becomes_plain() -> None:
    assert unpack_value([msgpack.packb([msgpack.Timestamp(1, 500_000_000)])]) == [1.5]


def test_a_pickle_is_never_opened() -> None:
    import pickle

    hostile = pickle.dumps(Point(1, 2))
    with pytest.raises(MessageError):
        unpack_value([hostile])
    with pytest.raises(MessageError):
        unpack_value([tensor(None, "object", [len(hostile)], hostile)])


def test_what_is_announced_but_did_not_come_takes_no_memory() -> None:
    """Lists nested to the limit, each announcing a million elements: built naively they would reserve gigabytes."""
    hostile = (b"\xdd" + struct.pack(">I", 1_000_000)) * 500 + bytes(1_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(MessageError):
            unpack_value([hostile])
        assert tracemalloc.get_traced_memory()[1] < 50 * len(hostile)
    finally:
        tracemalloc.stop()


@settings(max_examples=300)
@given(st.binary(max_size=200) | plain.map(msgpack.packb), st.lists(st.binary(max_size=40), max_size=2))
def test_any_bytes_are_a_value_or_an_error(payload: bytes, others: list[bytes]) -> None:
    with contextlib.suppress(MessageError):
        unpack_value([payload, *others])


@given(
    st.none() | st.integers(-2, 3) | st.text(max_size=3),
    st.sampled_from([*(np.dtype(each).str for each in DTYPES), "float32", "bfloat16"]) | st.text(max_size=12),
    st.lists(st.integers(-1, 1 << 64) | st.integers(0, 4), max_size=4),
    st.binary(max_size=40),
)
def test_any_description_is_a_tensor_or_an_error(frame: Any, dtype: str, shape: list[int], data: bytes) -> None:
    for parts in ((frame, dtype, shape), (frame, dtype, shape, data)):
        try:
            packed = tensor(*parts)
        except (OverflowError, ValueError):
            return
        try:
            got = unpack_value([packed, data])
        except MessageError:
            continue
        assert list(got.shape) == shape


@given(st.data(), plain)
def test_a_damaged_message_is_a_value_or_an_error(data: st.DataObject, value: Any) -> None:
    frames: list[Frame] = [*pack_value({"value": value, "array": np.arange(300.0)})]
    which = data.draw(st.integers(0, len(frames) - 1))
    damaged = bytearray(frames[which])
    at = data.draw(st.integers(0, len(damaged) - 1))
    damaged[at] = data.draw(st.integers(0, 255))
    frames[which] = bytes(damaged[: data.draw(st.integers(0, len(damaged)))])
    with contextlib.suppress(MessageError):
        unpack_value(frames)


# -- the client's half -----------------------------------------------------------------------------------------------

INT: dict[str, Any] = {"kind": "int", "text": "int", "dtypes": [], "dims": None, "optional": False}
PORTS = [
    {
        "port": "count.upto",
        "summary": "",
        "stream": True,
        "fields": [{"name": "n", "required": True, "type": INT}],
        "answer": INT,
    },
    {
        "port": "count.sum",
        "summary": "",
        "stream": False,
        "fields": [{"name": "numbers", "required": True, "type": INT, "stream": True}],
        "answer": INT,
    },
]


def message(kind: str, number: int = 0, value: Any = None, code: str = "") -> list[Frame]:
    return [pack_head(Head(kind, number, code=code)), *pack_value(value)]


def welcomed(**about: Any) -> Session:
    session = Session("tcp://127.0.0.1:1")
    session.connected()
    assert unpack_head(session.outbox.popleft()).kind == FrameKind.HELLO
    session.receive([pack_head(Head(FrameKind.WELCOME, **about)), *pack_value({"graph": "g", "ports": PORTS})])
    assert session.is_ready
    return session


def nothing() -> None:
    pass


def sent(session: Session) -> list[Head]:
    heads = [unpack_head(frames) for frames in session.outbox]
    session.outbox.clear()
    return heads


def test_a_session_checks_calls_before_it_sends() -> None:
    session = welcomed()
    with pytest.raises(UnknownPort, match=r"did you mean 'count\.upto'"):
        session.pack("count.upot", (1,), {}, stream=True)
    with pytest.raises(MessageError, match="expected int, got str"):
        session.pack("count.upto", ("1",), {}, stream=True)
    with pytest.raises(MessageError, match="answers with a stream"):
        session.pack("count.upto", (1,), {}, stream=False)
    assert not session.outbox


def test_credit_is_renewed_as_items_are_taken() -> None:
    session = welcomed()
    pending = session.begin(Packed("count.upto", pack_value({"n": 5}), True, None), 1.0, nothing)
    (call,) = sent(session)
    assert (call.kind, call.credit, call.timeout_s, call.stream) == (FrameKind.CALL, WINDOW, 1.0, True)
    for each in range(WINDOW):
        session.receive(message(FrameKind.ITEM, pending.request, each))
    assert not sent(session)
    assert [pending.result() for _ in range(WINDOW)] == list(range(WINDOW))
    assert sum(head.credit for head in sent(session)) == WINDOW


def test_a_gateway_that_takes_no_streams_is_sent_none() -> None:
    with pytest.raises(MessageError, match="takes none from remote clients; update slabwire there"):
        welcomed().pack("count.sum", ([1],), {}, stream=False)


def test_a_stream_is_sent_against_credit_and_ends_with_its_call() -> None:
    session = welcomed(sends=True)
    closed = []

    def numbers() -> Iterator[int]:
        try:
            yield from range(1 << 62)
        finally:
            closed.append(True)

    pending = session.begin(session.pack("count.sum", (numbers(),), {}, stream=False), None, nothing)
    stream = pending.stream
    assert stream is not None
    (call,) = sent(session)
    assert call.sends
    assert not stream.can_go()
    session.receive([pack_head(Head(FrameKind.CREDIT, pending.request, credit=3)), NIL])
    while stream.can_go():
        stream.pull()
        stream.push()
    assert [(head.kind, head.id) for head in sent(session)] == [(FrameKind.ITEM, pending.request)] * 3
    session.receive([pack_head(Head(FrameKind.CREDIT, pending.request, credit=3)), NIL])
    session.receive([pack_head(Head(FrameKind.CREDIT, pending.request + 1, credit=3)), NIL])
    session.receive(message(FrameKind.REPLY, pending.request, 7))
    assert not stream.can_go()
    stream.close()
    stream.push()
    assert (sent(session), closed, pending.result()) == ([], [True], 7)
    with pytest.raises(MessageError, match="a blocking client cannot wait for an asynchronous iterable"):
        session.pack("count.sum", (aiter(_no_items()),), {}, stream=False)


async def _no_items() -> AsyncIterator[int]:
    yield 1


def test_a_lost_connection_ends_calls_and_a_new_one_greets() -> None:
    session = welcomed()
    pending = session.begin(Packed("count.upto", pack_value({"n": 5}), True, None), None, nothing)
    session.lost()
    with pytest.raises(Disconnected, match=r"graph 'g' at tcp://127\.0\.0\.1:1 went away"):
        pending.result()
    session.connected()
    assert [head.kind for head in sent(session)] == [FrameKind.HELLO]


def test_a_gateway_that_does_not_know_the_client_is_greeted_again() -> None:
    session = welcomed()
    pending = session.begin(Packed("count.upto", pack_value({"n": 5}), True, None), None, nothing)
    session.outbox.clear()
    session.receive(message(FrameKind.ERROR, value="who are you", code="disconnected"))
    with pytest.raises(Disconnected, match="who are you"):
        pending.result()
    assert [head.kind for head in sent(session)] == [FrameKind.HELLO]


def test_a_refusal_is_kept_for_whoever_waits() -> None:
    session = Session("tcp://127.0.0.1:1")
    session.connected()
    session.receive(message(FrameKind.ERROR, value="full", code="overloaded"))
    assert isinstance(session.refusal, Overloaded)


def test_a_welcome_that_cannot_be_read_is_refused() -> None:
    for payload in (b"\xc1", msgpack.packb({"graph": 3}), msgpack.packb({"graph": "g", "ports": [{}]})):
        session = Session("tcp://127.0.0.1:1")
        session.connected()
        session.receive([pack_head(Head(FrameKind.WELCOME)), payload])
        assert isinstance(session.refusal, ProtocolError)
        assert not session.is_ready


def test_a_damaged_answer_ends_its_call_alone() -> None:
    session = welcomed()
    one = session.begin(Packed("count.upto", pack_value({"n": 5}), True, None), None, nothing)
    other = session.begin(Packed("count.upto", pack_value({"n": 5}), True, None), None, nothing)
    session.outbox.clear()
    session.receive([pack_head(Head(FrameKind.ITEM, one.request)), b"\xc1"])
    session.receive(message(FrameKind.ITEM, other.request, 3))
    with pytest.raises(MessageError):
        one.result()
    assert (other.next_kind(), other.result()) == (RecordKind.ITEM, 3)
    assert [(head.kind, head.id) for head in sent(session)] == [(FrameKind.CANCEL, one.request)]


@given(
    st.lists(st.binary(max_size=60), min_size=1, max_size=3)
    | plain.map(lambda value: message(FrameKind.WELCOME, value=value))
)
def test_whatever_answers_the_session_survives(frames: list[Any]) -> None:
    session = welcomed()
    pending = session.begin(Packed("count.upto", pack_value({"n": 5}), True, None), None, nothing)
    session.receive(frames)
    assert session.is_ready or isinstance(pending.arrived[0][1], SlabwireError)


@given(plain)
def test_any_description_of_ports_is_read_or_refused(described: Any) -> None:
    session = Session("tcp://127.0.0.1:1")
    session.connected()
    session.receive(message(FrameKind.WELCOME, value={"graph": "g", "ports": described}))
    assert session.is_ready or isinstance(session.refusal, ProtocolError)
