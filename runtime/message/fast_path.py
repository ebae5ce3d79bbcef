"""The messages that most are, numbers and texts or one array, which go without a Parcel where a lane is open.

Packing and publishing is all Python's own price here, so this is a second way beside the parcel's general one.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple, cast

import msgpack
import numpy as np
from numpy.typing import NDArray

from ...shm.block import Block
from ...shm.errors import MessageError
from ...shm.lane import Producer
from ...shm.lease import Lease, LeasedArray
from ...shm.loan import LoanBase
from ...shm.pool import Pool
from ...shm.tensor import Description, Token, describe, description_of, inline_array, token_of
from .header import INLINE_NBYTES, Flag, Header, write_record

# A tensor up to this size travels in the metadata; with its description it just fits a record.
INLINE_TENSOR_NBYTES = 96
_LONGEST_NAME = 255
_SCALARS = frozenset((type(None), bool, int, float, str, bytes))
_SIZED = frozenset((str, bytes))
_ARRAY, _ARRAY_IN_BLOCK, _PLAIN = Flag.ARRAY, Flag.ARRAY | Flag.BLOCK, Flag.PLAIN
_FIELDS = Flag.FIELDS
SHORT = Flag.ARRAY | Flag.PLAIN
_pack, _unpack = msgpack.Packer().pack, msgpack.unpackb

Holder = Block | Lease


class Short(NamedTuple):
    """A packed message: `at` is where the description of its array ends. `array` is what needs a block: it lies in that
    of `holder` already, or (None) is to be copied into one.
    """

    flags: int
    metadata: bytes
    at: int = 0
    array: NDArray[Any] | None = None
    holder: Holder | None = None


def pack_short(value: Any, is_fields: bool) -> Short | None:
    """Packs a value, or a dict of fields, if it is short and finds room in a record. None if it is not, or cannot be
    sent: whoever packs anything says why.
    """
    flags, name, sole = 0, None, value
    if is_fields:
        flags = _FIELDS
        if len(value) == 1:
            ((name, sole),) = value.items()
        elif _SCALARS.issuperset(map(type, value.values())):
            sole = None
        else:
            return None
    if type(sole) is np.ndarray:
        try:
            return _pack_array(flags, name, sole)
        except (MessageError, UnicodeEncodeError):
            return None
    if type(sole) not in _SCALARS or _is_long(sole) or (flags and name is None and any(map(_is_long, value.values()))):
        return None
    try:
        metadata = _pack(value)
    except (OverflowError, ValueError, TypeError):
        return None  # an int of over 64 bits, say
    return _as_short(Short, (flags | _PLAIN, metadata, 0, None, None)) if _fits(metadata) else None


def _is_long(value: Any) -> bool:
    """Whether it fits no record for sure. The packer must not see it, which keeps room for the longest that it saw."""
    return type(value) in _SIZED and len(value) > INLINE_NBYTES


def _pack_array(flags: int, name: str | None, array: NDArray[Any]) -> Short | None:
    dtype, shape, nbytes = array.dtype, array.shape, array.nbytes
    token = dtype if dtype.isbuiltin else token_of(dtype)  # the first half of `token_of`, without the price of a call
    if nbytes <= INLINE_TENSOR_NBYTES:
        head = _describe(name, token, shape, None, 0, nbytes)
        metadata = head + array.tobytes()
        return _as_short(Short, (flags | _ARRAY, metadata, len(head), None, None)) if _fits(metadata) else None
    holder = holder_of(array)
    if holder is None:
        metadata = _describe(name, token, shape, None, 0, None)
    else:
        strides = None if array.flags.c_contiguous else array.strides
        metadata = _describe(name, token, shape, strides, offset_in(array, holder), None)
    packed = flags | _ARRAY_IN_BLOCK, metadata, len(metadata), array, holder
    return _as_short(Short, packed) if _fits(metadata) else None


def _fits(metadata: bytes) -> bool:
    return len(metadata) <= INLINE_NBYTES


def post(
    value: Any, pool: Pool, producer: Producer, kind: int, flags: int, head: tuple[int, ...], *, is_fields: bool = False
) -> bool:
    """Packs a value and publishes it at once. False, with nothing done, if it is not short or finds no room: then it
    takes a Parcel. `head` holds the header's numbers from `source` to `cause_sequence`.

    Raises MessageError for what cannot be sent, OutOfMemory when the pool is exhausted.
    """
    if producer.room() < 1 or (short := pack_short(value, is_fields)) is None:
        return False
    own, metadata, at, array, holder = short
    row = slab = block = generation = 0
    if array is not None:
        lent = _lent(producer, pool, array, holder)
        if lent is None:
            return False
        row, slab, block, generation = lent
    where = row, slab, block, generation, at
    try:
        write_record(producer.segment.bytes, producer.slot(), kind, flags | own, *head, len(metadata), *where, metadata)
        producer.publish()
    except BaseException:  # Ctrl-C while it was copied, say, which is heard only now
        if array is not None:
            producer.take_back(row)
        raise
    return True


def _lent(
    producer: Producer, pool: Pool, array: NDArray[Any], holder: Holder | None
) -> tuple[int, int, int, int] | None:
    """Lends where an array lies, or a block that it is copied into: row, slab, block, generation; None: no free row."""
    if holder is None:
        again = producer.lend_again(array.nbytes)
        if again is not None:
            row, block = again[0], cast(Block, again[1])  # only blocks of our own are lent again
        elif producer.can_lend():
            block = pool.take(array.nbytes)
            block.lends += 1
            row = producer.lend(block.slab.identifier, block.index, block)
        else:
            return None
        try:
            copy_in(array, block)
        except BaseException:  # Ctrl-C, say
            producer.take_back(row)
            raise
        return row, block.slab.identifier, block.index, block.generation
    if not producer.can_lend():
        return None
    if not isinstance(holder, Block):
        return lend_lease(producer, holder)
    freeze(array, holder)
    holder.lends += 1
    row = producer.lend(holder.slab.identifier, holder.index, holder)
    return row, holder.slab.identifier, holder.index, holder.generation


def lend_lease(producer: Producer, lease: Lease) -> tuple[int, int, int, int]:
    """Forwards a block with the next record: row, slab, block, generation. Only if `can_lend`."""
    slab, block = lease.slab.identifier, lease.block
    return producer.lend(slab, block, lease, lease.source), slab, block, lease.generation


def copy_in(array: NDArray[Any], block: Block, at: int = 0) -> None:
    """Copies an array into a block, contiguous, `at` bytes behind its beginning."""
    np.ndarray(array.shape, array.dtype, block.slab.mapping, block.start + at)[...] = array


def freeze(array: NDArray[Any], block: Block) -> None:
    """Publishing ends writing: the array and those that it is a view of."""
    if block.pool.ledger is not None:
        block.pool.ledger.published(block, array)
    each: Any = array
    while isinstance(each, np.ndarray):
        each.flags.writeable = False
        each = each.base


def holder_of(array: NDArray[Any]) -> Holder | None:
    """The block that an array lies in, if it is a loan, or the lease that it was received under; or a view of such."""
    base: Any = array.base
    while base is not None:
        kind = type(base)
        if kind is LoanBase:
            return base.block  # type: ignore[no-any-return]
        if kind is LeasedArray:
            return base.lease  # type: ignore[no-any-return]
        if not isinstance(base, np.ndarray):
            return None
        base = base.base
    return None


def offset_in(array: NDArray[Any], holder: Holder) -> int:
    """Where in its block an array begins, in bytes."""
    return int(array.__array_interface__["data"][0]) - holder.address()


# -- the receiver ----------------------------------------------------------------------------------------------------


def open_short(header: Header, lease: Lease | None) -> Any:
    """The value of a short message. Raises MessageError if the bytes are none of ours."""
    at, inline = header.at, header.inline
    if not header.flags & _ARRAY:
        try:
            return _unpack(inline[: header.nbytes])
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            raise MessageError(f"a message cannot be unpacked: {error}") from None
    name, tensor = _described(inline[:at])
    if (name is None) == bool(header.flags & _FIELDS):
        raise MessageError("a message that is one array says of which field it is, or is no message of fields")
    if tensor.inline_nbytes is None:
        array = array_of(tensor, lease)
    else:
        data = inline[at : header.nbytes]
        if len(data) != tensor.inline_nbytes:
            raise MessageError(f"a tensor of {tensor.inline_nbytes} bytes came with {len(data)}")
        array = inline_array(tensor, data)
    return array if name is None else {name: array}


def array_of(tensor: Description, lease: Lease | None) -> NDArray[Any]:
    """The array that a description says, in the block of a lease. Raises MessageError if it does not lie there."""
    if lease is None:
        raise MessageError("a message describes a tensor in a block, but refers to none")
    if tensor.low < 0 or tensor.high > lease.slab.block_nbytes:
        raise MessageError(f"a tensor of shape {tensor.shape} at {tensor.at} does not lie in its block")
    try:
        return lease.array(tensor.at, tensor.shape, tensor.dtype, tensor.strides)
    except (ValueError, TypeError) as error:
        raise MessageError(f"a tensor of shape {tensor.shape} cannot be: {error}") from None


_as_short = tuple.__new__


@lru_cache(maxsize=1024)
def _describe(
    name: str | None,
    token: Token,
    shape: tuple[int, ...],
    strides: tuple[int, ...] | None,
    at: int,
    inline_nbytes: int | None,
) -> bytes:
    """The metadata of a message that is one array: its field's name behind its length plus 1 (0: it has none), and what
    `describe` says. Raises MessageError for what cannot be sent.
    """
    field = b"" if name is None else name.encode()
    length = 0 if name is None else len(field) + 1
    if length > _LONGEST_NAME:
        return bytes(INLINE_NBYTES + 1)  # such a name does not fit a record: it goes the common way
    return bytes((length,)) + field + describe(token, shape, strides, at, inline_nbytes)


@lru_cache(maxsize=1024)
def _described(packed: bytes) -> tuple[str | None, Description]:
    """The inverse of `_describe`. Raises MessageError for bytes that it cannot have made."""
    length = packed[0] if packed else 0
    try:
        name = packed[1:length].decode() if length else None
    except UnicodeDecodeError as error:
        raise MessageError(f"the name of a field is damaged: {error}") from None
    return name, description_of(packed[max(1, length) :])
