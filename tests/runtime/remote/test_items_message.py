"""Messages of many items: what is packed comes back, and no number in one is trusted."""

from __future__ import annotations

import contextlib
import tracemalloc
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slabwire.runtime.errors import MessageError, ProtocolError, SlabwireError
from slabwire.runtime.message.header import Kind
from slabwire.runtime.remote.client_protocol import Packed, Session
from slabwire.runtime.remote.frame_codec import pack_value
from slabwire.runtime.remote.items_message import MOST_STREAMS, Delivery, ItemsMessage, unpack_items
from slabwire.runtime.remote.protocol import LARGEST_ID, FrameKind, Head, pack_head, unpack_head

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.text(max_size=10) | st.binary(max_size=40),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
deliveries = st.lists(st.builds(Delivery, st.integers(1, LARGEST_ID), st.lists(plain, max_size=5), st.booleans()))


def packed(*each: Delivery) -> bytes:
    message = ItemsMessage()
    for number, values, is_over in each:
        message.add(number, [bytes(pack_value(value)[0]) for value in values], is_over=is_over)
    return message.payload()


@given(deliveries)
def test_what_is_gathered_comes_back(expected: list[Delivery]) -> None:
    assert list(unpack_items([packed(*expected)])) == expected


def test_small_arrays_travel_inside() -> None:
    (got,) = unpack_items([packed(Delivery(3, [np.arange(4), [np.float32(1)]], False))])
    assert np.array_equal(got.values[0], np.arange(4))
    assert not got.values[0].flags.writeable


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        [[]],
        [[], [], []],
        [{}, []],
        [[], [1]],
        [[[1, 1, False]], []],
        [[[1, 2, False]], [1]],
        [[[1, 1 << 62, False]], [1]],
        [[[1, -1, False], [2, 2, False]], [1]],
        [[[1, True, False]], [1]],
        [[[True, 1, False]], [1]],
        [[[0, 1, False]], [1]],
        [[[1 << 63, 1, False]], [1]],
        [[[1, 1, 0]], [1]],
        [[[1, 1]], [1]],
        [[1, 1, False], [1]],
        [[[1, 1.0, False]], [1]],
        [[["1", 1, False]], [1]],
        [[[1, 0, False]] * (MOST_STREAMS + 1), []],
    ],
)
def test_what_announces_something_else_is_refused(document: Any) -> None:
    with pytest.raises(ProtocolError):
        unpack_items([msgpack.packb(document)])


def test_frames_beside_it_are_refused() -> None:
    with pytest.raises(ProtocolError, match="frames beside it"):
        unpack_items([packed(Delivery(1, [1], False)), b"bytes"])


def test_what_is_announced_but_did_not_come_takes_no_memory() -> None:
    hostile = b"\x92\xdd\x7f\xff\xff\xff" + b"\x93\x01\x00\xc2" * 1000
    tracemalloc.start()
    try:
        with pytest.raises(MessageError):
            unpack_items([hostile])
        assert tracemalloc.get_traced_memory()[1] < 100 * len(hostile)
    finally:
        tracemalloc.stop()


@given(st.data(), deliveries)
def test_a_damaged_message_is_read_or_refused(data: st.DataObject, each: list[Delivery]) -> None:
    damaged = bytearray(packed(*each))
    damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(MessageError, ProtocolError):
        unpack_items([bytes(damaged[: data.draw(st.integers(1, len(damaged)))])])


# -- what the client's half makes of it ------------------------------------------------------------------------------


def welcomed() -> Session:
    session = Session("tcp://127.0.0.1:1")
    session.connected()
    assert unpack_head(session.outbox.popleft()) == Head(FrameKind.HELLO, items=True)
    session.receive([pack_head(Head(FrameKind.WELCOME, items=True)), *pack_value({"graph": "g", "ports": []})])
    return session


def items(payload: bytes) -> list[Any]:
    return [pack_head(Head(FrameKind.ITEMS)), payload]


def test_each_call_gets_its_own_and_is_told_once() -> None:
    session, told = welcomed(), []
    calls = [
        session.begin(Packed("a.b", pack_value({}), True, None), None, lambda n=n: told.append(n))  # type: ignore[misc]
        for n in (1, 2, 3)
    ]
    session.cancel(calls[2])
    session.receive(
        items(
            packed(
                Delivery(2, ["x", "y"], True), Delivery(1, [7], False), Delivery(3, [9], True), Delivery(8, [], True)
            )
        )
    )
    assert list(calls[0].arrived) == [(Kind.ITEM, 7)]
    assert list(calls[1].arrived) == [(Kind.ITEM, "x"), (Kind.ITEM, "y"), (Kind.END, None)]
    assert not calls[2].arrived
    assert told == [2, 1]
    session.receive(items(packed(Delivery(2, ["late"], False))))  # it has ended
    assert len(calls[1].arrived) == 3


@given(st.binary(max_size=60) | plain.map(msgpack.packb) | deliveries.map(lambda each: packed(*each)))
def test_whatever_comes_the_session_survives(payload: bytes) -> None:
    session = welcomed()
    pending = session.begin(Packed("a.b", pack_value({}), True, None), None, None)
    session.receive(items(payload))
    assert session.is_ready or isinstance(pending.arrived[-1][1], SlabwireError)
