"""Tensors through a description: every dtype and every way to lie in memory, and bytes that nobody can have packed."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from edge import Edge, receive, send_block
from slabwire.shm.errors import MessageError
from slabwire.shm.pool import Pool
from slabwire.shm.tensor import dtype_name, dtype_named, extent, inline_array, pack_tensor, unpack_tensor

BUILTIN = [
    "?",
    "b",
    "i2",
    "u4",
    "q",
    "e",
    "f",
    "d",
    "g",
    "F",
    "D",
    "G",
    ">i4",
    ">f8",
    ">c16",
    "S3",
    "U5",
    ">U2",
    "V6",
    "M8[ns]",
    "m8[s]",
    ">M8[D]",
    "datetime64[3h]",
]
EXTENSIONS = ["bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3b11fnuz", "int4", "uint4"]
DTYPES = [np.dtype(each) for each in BUILTIN] + [np.dtype(getattr(ml_dtypes, each)) for each in EXTENSIONS]


@pytest.fixture
def pool() -> Iterator[Pool]:
    edge = Edge()
    pool = edge.pool()
    yield pool
    pool.close()
    edge.close()


def _bytes_of(array: NDArray[Any]) -> bytes:
    return np.ascontiguousarray(array).tobytes()


def _through_a_block(pool: Pool, array: NDArray[Any]) -> NDArray[Any]:
    """What a reader makes of an array that lies in a loan."""
    base: Any = array
    while isinstance(base.base, np.ndarray):
        base = base.base
    start = array.__array_interface__["data"][0] - base.__array_interface__["data"][0]
    found, data = unpack_tensor(pack_tensor(array, start))
    assert data == b""
    low, high = extent(found.shape, found.strides, found.dtype.itemsize)
    assert found.at + low >= 0
    assert found.at + high <= base.nbytes
    flat = base.reshape(-1).view(np.uint8) if base.nbytes else np.empty(0, np.uint8)
    return np.ndarray(found.shape, found.dtype, flat.data, found.at, found.strides)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_keeps_its_name_and_its_bytes(pool: Pool, dtype: np.dtype[Any]) -> None:
    assert dtype_named(dtype_name(dtype)) == dtype
    assert dtype_named(dtype_name(dtype)).byteorder == dtype.byteorder
    loan = pool.loan((3, 4), dtype)
    assert (loan.dtype, loan.shape, loan.flags.writeable) == (dtype, (3, 4), True)
    assert loan.ctypes.data % 128 == 0
    loan[...] = (
        np.arange(12).reshape(3, 4).astype("i8").astype(dtype) if dtype.kind != "V" or dtype in DTYPES[-6:] else b"ab"
    )
    seen = _through_a_block(pool, loan)
    assert (seen.dtype, seen.shape, _bytes_of(seen)) == (dtype, (3, 4), _bytes_of(loan))
    inline, data = unpack_tensor(pack_tensor(loan, 0, inline=True))
    assert (inline.dtype, inline.shape, data) == (dtype, (3, 4), _bytes_of(loan))


VIEWS: dict[str, Any] = {
    "whole": lambda a: a,
    "row": lambda a: a[1],
    "column": lambda a: a[:, 2],
    "strided": lambda a: a[::2, 1::2],
    "reversed": lambda a: a[::-1, ::-1],
    "transposed": lambda a: a.T,
    "fortran": lambda a: a.reshape(-1, order="A").reshape((6, 4), order="F"),
    "one element": lambda a: a[2:3, 3:4],
    "no dimension": lambda a: a[1, 1, ...],
    "new axes": lambda a: a[None, :, None, 1:2],
    "broadcast": lambda a: np.broadcast_to(a, (3, 4, 6)),
    "empty": lambda a: a[1:1],
    "empty column": lambda a: a[:, 3:3],
}


@pytest.mark.parametrize("name", VIEWS)
def test_every_view_of_a_loan_is_described_where_it_lies(pool: Pool, name: str) -> None:
    loan = pool.loan((4, 6), np.float32)
    loan[...] = np.arange(24).reshape(4, 6)
    view = VIEWS[name](loan)
    seen = _through_a_block(pool, view)
    np.testing.assert_array_equal(seen, view)
    assert seen.shape == view.shape
    np.testing.assert_array_equal(inline_array(*unpack_tensor(pack_tensor(view, 0, inline=True))), view)


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (3, 0, 2), (1,) * 32])
def test_shapes_without_extent(pool: Pool, shape: tuple[int, ...]) -> None:
    loan = pool.loan(shape, np.int64)
    loan[...] = 9
    assert loan.shape == shape
    assert _bytes_of(_through_a_block(pool, loan)) == _bytes_of(loan)


def test_a_reader_sees_extension_dtypes_too() -> None:
    edge = Edge()
    producer, consumer = edge.producer(), edge.consumer()
    for dtype in DTYPES:
        send_block(producer, edge.pool(producer), 7)
        consumer.available()
        _, array = receive(consumer, edge.slab(len(edge.slabs)))
        base: Any = array.base
        seen = base.lease.array(0, (2,), dtype, None)
        assert (seen.dtype, seen.flags.writeable) == (dtype, False)
        assert seen.tobytes() == b"\7" * (2 * dtype.itemsize)
        producer.reap()
    edge.close()


REFUSED: dict[str, tuple[Any, str]] = {
    "objects": (object, "holds Python objects"),
    "a field with objects": ([("a", object)], "holds Python objects"),
    "structured": ([("x", "f4"), ("y", "f4")], "send one array a field"),
    "an array in the dtype": (("f4", (2,)), "send one array a field"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_sent_is_refused_by_name(pool: Pool, name: str) -> None:
    dtype, complaint = REFUSED[name]
    with pytest.raises(MessageError, match=complaint):
        pool.loan((2,), dtype)
    with pytest.raises(MessageError, match=complaint):
        pack_tensor(np.empty(2, dtype) if name != "an array in the dtype" else np.empty(2, [("a", dtype)]), 0)
    assert pool.blocks_out == 0


def test_a_bad_shape_leaves_no_block_out(pool: Pool) -> None:
    with pytest.raises(ValueError, match="negative dimensions"):
        pool.loan((-1, 3), np.float32)
    pool.collect()
    assert pool.blocks_out == 0


def test_too_many_dimensions_are_refused_where_they_are_sent() -> None:
    array = np.ndarray((1,) * 33, np.int8) if np.lib.NumpyVersion(np.__version__) >= "2.0.0" else None
    if array is None:
        pytest.skip("this numpy cannot make one")
    with pytest.raises(MessageError, match="33 dimensions; at most 32"):
        pack_tensor(array, 0)


POINTERS = [
    "O",
    "|O",
    "O8",
    "object",
    "finfo",
    "iinfo",
    "np",
    "__name__",
    "f4,f4",
    "(2,3)f4",
    "i4,O",
    "float7",
    "",
    "{}",
]


@pytest.mark.parametrize("text", POINTERS)
def test_a_name_never_makes_pointers_or_structures_of_a_peers_bytes(text: str) -> None:
    with pytest.raises(MessageError):
        dtype_named(text.encode())


def _packed(name: bytes, dimensions: int, flags: int, nbytes: int, *numbers: int) -> bytes:
    return (
        struct.pack("<BBBxI", len(name), dimensions, flags, nbytes) + name + struct.pack(f"<{len(numbers)}q", *numbers)
    )


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"\x01",
        _packed(b"f4", 2, 0, 0, 0, 3),
        _packed(b"f4", 1, 0, 0, -8, 3),
        _packed(b"f4", 1, 0, 0, 0, -3),
        _packed(b"f4", 33, 0, 0, 0, *[1] * 33),
        _packed(b"f4", 1, 1, 12, 0, 3) + b"12345678",
        _packed(b"\xff\xfe", 1, 0, 0, 0, 3),
        _packed(b"O", 1, 0, 0, 0, 3),
        _packed(b"M8[ns/0]", 1, 0, 0, 0, 3),  # numpy itself dies of a division by zero
        _packed(b"<m8[0/0s]", 1, 0, 0, 0, 3),
        _packed(b"i4,f8", 1, 0, 0, 0, 3),
    ],
)
def test_a_damaged_description_is_an_error(packed: bytes) -> None:
    with pytest.raises(MessageError):
        unpack_tensor(packed)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=80))
def test_any_bytes_are_a_description_or_an_error(packed: bytes) -> None:
    try:
        found, _ = unpack_tensor(packed)
    except MessageError:
        return
    assert not found.dtype.hasobject
    assert len(found.shape) <= 32


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_the_extent_is_what_the_array_touches(data: st.DataObject) -> None:
    shape = data.draw(arrays.array_shapes(max_dims=4, min_side=0, max_side=5))
    array = np.zeros(shape, np.int16)
    view = array[data.draw(arrays.basic_indices(shape))]
    assume(isinstance(view, np.ndarray))  # not a scalar
    low, high = extent(view.shape, view.strides, 2)
    assert np.lib.array_utils.byte_bounds(view) == (view.ctypes.data + low, view.ctypes.data + high) or 0 in view.shape
