"""A value as the metadata of a record, and back.

Most messages are numbers and texts, or one array. Their metadata fits the record, and `encode` makes it without a walk
through the value. All other values are encoded by `Payload`. `decode` reads both.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import msgpack
import numpy as np
from numpy.typing import NDArray

from ...shm.errors import MessageError
from ...shm.lease import Lease
from ...shm.tensor import Description, Token, describe, description_of, inline_array, token_of, unpack_tensor
from .header import INLINE_NBYTES, Flag, Header
from .lending import Holder, array_of, holder_of, offset_in
from .values import TENSOR_CODE, unknown_code, unpacked

# A tensor up to this size travels in the metadata; with its description it just fits a record.
INLINE_TENSOR_NBYTES = 96
# The length of a field's name, plus 1, is one byte of the metadata.
_LONGEST_NAME = 255
_SCALARS = frozenset((type(None), bool, int, float, str, bytes))
_SIZED = frozenset((str, bytes))
# Class attributes cost a look-up each time.
_ARRAY, _ARRAY_IN_BLOCK, _PLAIN = Flag.ARRAY, Flag.ARRAY | Flag.BLOCK, Flag.PLAIN
_FIELDS, _IN_BLOCK = Flag.FIELDS, Flag.IN_BLOCK
_pack, _unpack = msgpack.Packer().pack, msgpack.unpackb
_as_tuple = tuple.__new__


class Encoded(NamedTuple):
    """The metadata of a message. `at` is where the description of its only array ends.

    `array` is an array that needs a block: the array lies in the block of `holder` already, or (None) must be copied.
    """

    flags: int
    metadata: bytes
    at: int = 0
    array: NDArray[Any] | None = None
    holder: Holder | None = None


def encode(value: Any, is_fields: bool) -> Encoded | None:
    """Encodes a number, a text or an array, or fields (`is_fields`) that are numbers and texts or one array.

    None for any other value, for metadata that does not fit a record, and for what cannot be sent: `Payload` encodes
    it, or says why not.
    """
    flags, name, sole = 0, None, value
    if is_fields:
        flags = _FIELDS
        if len(value) == 1:
            ((name, sole),) = value.items()
        elif _SCALARS.issuperset(map(type, value.values())) and not any(map(_is_long, value.values())):
            sole = None
        else:
            return None
    kind = type(sole)
    try:
        if kind is np.ndarray:
            encoded = _encode_array(flags, name, sole)
        elif kind not in _SCALARS or (kind in _SIZED and len(sole) > INLINE_NBYTES):
            return None
        else:
            encoded = _as_tuple(Encoded, (flags | _PLAIN, _pack(value), 0, None, None))
    except (OverflowError, ValueError, TypeError):  # a MessageError is a TypeError
        return None
    return encoded if len(encoded[1]) <= INLINE_NBYTES else None


def _is_long(value: Any) -> bool:
    """Whether a value cannot fit a record. The packer must not see it: the packer keeps a buffer for its longest."""
    return type(value) in _SIZED and len(value) > INLINE_NBYTES


def _encode_array(flags: int, name: str | None, array: NDArray[Any]) -> Encoded:
    dtype, shape, nbytes = array.dtype, array.shape, array.nbytes
    token = dtype if dtype.isbuiltin else token_of(dtype)  # the first half of `token_of`, without the price of a call
    if nbytes <= INLINE_TENSOR_NBYTES:
        head = _describe(name, token, shape, None, 0, nbytes)
        return _as_tuple(Encoded, (flags | _ARRAY, head + array.tobytes(), len(head), None, None))
    holder = holder_of(array)
    if holder is None:
        metadata = _describe(name, token, shape, None, 0, None)
    else:
        strides = None if array.flags.c_contiguous else array.strides
        metadata = _describe(name, token, shape, strides, offset_in(array, holder), None)
    return _as_tuple(Encoded, (flags | _ARRAY_IN_BLOCK, metadata, len(metadata), array, holder))


def decode(header: Header, lease: Lease | None) -> Any:
    """The value of a record; its arrays are read-only and hold the lease.

    Raises MessageError if the bytes are not a message of ours.
    """
    flags, inline, nbytes = header.flags, header.inline, header.nbytes
    if flags & _ARRAY:
        at = header.at
        name, tensor = _described(inline[:at])
        if (name is None) == bool(flags & _FIELDS):
            raise MessageError("a message that is one array says of which field it is, or is no message of fields")
        if tensor.inline_nbytes is None:
            array = array_of(tensor, lease)
        else:
            data = inline[at:nbytes]
            if len(data) != tensor.inline_nbytes:
                raise MessageError(f"a tensor of {tensor.inline_nbytes} bytes came with {len(data)}")
            array = inline_array(tensor, data)
        return array if name is None else {name: array}
    if flags & _PLAIN:
        try:
            return _unpack(inline[:nbytes])
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            raise MessageError(f"a message cannot be unpacked: {error}") from None
    return _decode_any(header, lease)


def _decode_any(header: Header, lease: Lease | None) -> Any:
    def place(code: int, data: bytes) -> Any:
        if code != TENSOR_CODE:
            raise unknown_code(code)
        tensor, inline = unpack_tensor(data)
        return array_of(tensor, lease) if tensor.inline_nbytes is None else inline_array(tensor, inline)

    if not header.flags & _IN_BLOCK:
        return unpacked(header.inline[: header.nbytes], place)
    if lease is None or header.at + header.nbytes > lease.slab.block_nbytes:
        raise MessageError("a message's metadata does not lie in its block")
    return unpacked(lease.bytes()[header.at : header.at + header.nbytes], place)


@lru_cache(maxsize=1024)
def _describe(
    name: str | None,
    token: Token,
    shape: tuple[int, ...],
    strides: tuple[int, ...] | None,
    at: int,
    inline_nbytes: int | None,
) -> bytes:
    """The metadata of a message that is one array: the length of its field's name plus 1 (0: it has no name), the name,
    and what `describe` says. Raises MessageError for what cannot be sent.
    """
    field = b"" if name is None else name.encode()
    length = 0 if name is None else len(field) + 1
    if length > _LONGEST_NAME:
        return bytes(INLINE_NBYTES + 1)  # more than fits a record, so that the message becomes a Payload
    return bytes((length,)) + field + describe(token, shape, strides, at, inline_nbytes)


@lru_cache(maxsize=1024)
def _described(packed: bytes) -> tuple[str | None, Description]:
    """The inverse of `_describe`. Raises MessageError for bytes that `_describe` cannot have made."""
    length = packed[0] if packed else 0
    try:
        name = packed[1:length].decode() if length else None
    except UnicodeDecodeError as error:
        raise MessageError(f"the name of a field is damaged: {error}") from None
    return name, description_of(packed[max(1, length) :])
