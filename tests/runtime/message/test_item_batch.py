"""The bytes of a batch of items: what was put in comes out, and what is damaged is an error of ours."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slabwire import MessageError
from slabwire.runtime.message.header import Kind
from slabwire.runtime.message.item_batch import (
    MOST_ITEM_NBYTES,
    Sent,
    head_of,
    pack_item,
    packed_batch,
    read_items,
    read_sent,
)

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
NUMBERS = st.integers(1, (1 << 64) - 1)
# Request, sequence and lane of a stream, the item's ordinal, and its value; True in front: the stream ends.
ROWS = st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS, st.integers(0, (1 << 32) - 1), st.booleans(), VALUES), min_size=1)
Row = tuple[int, int, int, int, bool, Any]


def batch_of(rows: list[Row]) -> tuple[memoryview, int, int]:
    heads = [head_of(request, sequence, lane) for request, sequence, lane, _, _, _ in rows]
    items = [b"" if is_end else pack_item(value) or b"" for _, _, _, _, is_end, value in rows]
    data = packed_batch(heads, [row[3] for row in rows], items)
    return memoryview(data + bytes(64)), len(rows), len(data)


@given(ROWS)
def test_what_is_put_in_comes_out(rows: list[Row]) -> None:
    block = batch_of(rows)
    items = read_items(*block)
    assert items.requests == [row[0] for row in rows]
    assert list(items.kinds) == [Kind.END if row[4] else Kind.ITEM for row in rows]
    assert items.values == [None if row[4] else row[5] for row in rows]
    assert list(read_sent(*block)) == [
        Sent(lane, sequence, ordinal, Kind.END if is_end else Kind.ITEM)
        for _, sequence, lane, ordinal, is_end, _ in rows
    ]


@given(ROWS, st.data())
def test_damaged_bytes_are_a_message_error_or_other_items_and_nothing_else(
    rows: list[Row], data: st.DataObject
) -> None:
    block, count, nbytes = batch_of(rows)
    damaged = bytearray(block)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, nbytes - 1))] = data.draw(st.integers(0, 255))
    count, nbytes = data.draw(st.sampled_from([(count, nbytes), (count + 1, nbytes), (count, nbytes - 1), (0, 8)]))
    for read in (read_items, read_sent):
        try:
            assert read(memoryview(damaged), count, nbytes)
        except MessageError:
            continue


def test_small_arrays_travel_inside_and_are_copies() -> None:
    small = np.arange(8, dtype=np.float32)
    block = bytearray(packed_batch([head_of(1, 2, 3)], [0], [pack_item({"x": small, "t": "a"}) or b""]))
    (value,) = read_items(memoryview(block), 1, len(block)).values
    block[:] = bytes(len(block))
    assert np.array_equal(value["x"], small)
    assert not value["x"].flags.writeable


@pytest.mark.parametrize("value", [np.zeros(1000), "x" * (MOST_ITEM_NBYTES + 1), {"deep": [np.zeros(100)]}])
def test_what_is_large_travels_alone(value: Any) -> None:
    assert pack_item(value) is None


@pytest.mark.parametrize("value", [object(), 1 << 64, "\ud800", {1: 2}, {"x": {"y": object()}}])
def test_what_no_message_carries_is_refused_with_the_path_to_it(value: Any) -> None:
    with pytest.raises(MessageError, match="message"):
        pack_item(value)
