"""A value as frames: a msgpack payload, and behind it the bytes of its tensors. No I/O; nothing is ever unpickled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray

from ...shm.tensor import MOST_DIMENSIONS, check_array, dtype_name, dtype_named
from ..errors import MessageError
from ..message.values import TENSOR_CODE, packed, plain, plain_fields, unknown_code, unpacked
from .protocol import LARGEST_HEAD_NBYTES, LARGEST_MESSAGE_NBYTES, LARGEST_PAYLOAD_NBYTES, MOST_TENSORS, Frame

# A larger tensor gets a frame of its own. A frame costs about 2 µs at each end; copying this much costs less.
OWN_FRAME_ABOVE_NBYTES = 512
_NIL = b"\xc0"


def pack_value(value: Any, *, is_fields: bool = False) -> list[Frame]:
    """The frames of a value, or of the fields of a call by name. Tensors that are contiguous are not copied: they must
    not change until they are sent.

    Raises MessageError for what a message cannot carry, naming the path to it, and for what is too large.
    """
    if value is None:
        return [_NIL]
    tensors: list[Frame] = []
    total = 0

    def place(array: NDArray[Any]) -> msgpack.ExtType:
        nonlocal total
        check_array(array)
        total += array.nbytes
        _check_size(0, total)  # before anything is copied: what is broadcast may have any size
        return msgpack.ExtType(TENSOR_CODE, _pack_tensor(array, tensors))

    payload = packed(plain_fields(value) if is_fields else plain(value), place)
    _check_size(len(payload), sum(map(len, tensors)))
    return [payload, *tensors]


def _check_size(payload_nbytes: int, tensors_nbytes: int) -> None:
    if payload_nbytes > LARGEST_PAYLOAD_NBYTES:
        raise MessageError(
            f"a message has {payload_nbytes} bytes beside its arrays; over a network {LARGEST_PAYLOAD_NBYTES} may go: "
            "put the bulk into numpy arrays, or split it"
        )
    total, most = payload_nbytes + tensors_nbytes, LARGEST_MESSAGE_NBYTES - LARGEST_HEAD_NBYTES
    if total > most:
        raise MessageError(f"a message has {total} bytes; over a network {most} may go: split it")


def _pack_tensor(array: NDArray[Any], tensors: list[Frame]) -> bytes:
    """[frame, dtype, shape] as msgpack, or [nil, dtype, shape, bytes] for a tensor that travels inside the payload."""
    name, shape = dtype_name(array.dtype).decode(), list(array.shape)
    flat = np.ascontiguousarray(array).reshape(-1)
    if array.nbytes <= OWN_FRAME_ABOVE_NBYTES or len(tensors) == MOST_TENSORS:
        inline: bytes = msgpack.packb([None, name, shape, flat.tobytes()])
        return inline
    tensors.append(flat.view(np.uint8).data)
    described: bytes = msgpack.packb([len(tensors) - 1, name, shape])
    return described


def unpack_value(frames: Sequence[Frame]) -> Any:
    """The value in these frames, the payload first; its arrays are read-only views of the others where they can be.

    Raises MessageError for bytes that are no value. What it takes of memory is bounded by what came.
    """
    payload, tensors = frames[0], frames[1:]
    if len(payload) > LARGEST_PAYLOAD_NBYTES:
        raise MessageError(f"a payload has {len(payload)} bytes; at most {LARGEST_PAYLOAD_NBYTES} are read")

    def place(code: int, described: bytes) -> Any:
        if code != TENSOR_CODE:
            raise unknown_code(code)
        return _unpack_tensor(described, tensors)

    return unpacked(payload, place, is_foreign=True)


def _unpack_tensor(described: bytes, tensors: Sequence[Frame]) -> NDArray[Any]:
    match msgpack.unpackb(described, max_array_len=MOST_DIMENSIONS, max_map_len=0, max_ext_len=0):
        case [None, str(name), list(shape), bytes(data)]:
            source: Frame = data
        case [int(frame), str(name), list(shape)] if 0 <= frame < len(tensors):
            source = tensors[frame]
        case _:
            raise MessageError(
                "a tensor is described neither as [frame, dtype, shape] nor as [nil, dtype, shape, bytes]"
            )
    dtype = dtype_named(name.encode())
    _check_shape(shape, dtype, len(source))
    array: NDArray[Any] = np.ndarray(shape, dtype, source)
    # What the network library received may lie anywhere; native code behind numpy often cannot read that.
    return _read_only(array if array.flags.aligned else array.copy())


def _check_shape(shape: list[Any], dtype: np.dtype[Any], nbytes: int) -> None:
    if len(shape) > MOST_DIMENSIONS or not all(type(each) is int and 0 <= each < 1 << 48 for each in shape):
        raise MessageError(f"a tensor has the impossible shape {shape[:MOST_DIMENSIONS]}")
    needed = dtype.itemsize
    for each in shape:
        needed *= each
    if needed != nbytes:
        raise MessageError(f"a tensor of shape {shape} and dtype {dtype.name} has {needed} bytes, but {nbytes} came")


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    array.flags.writeable = False
    return array
