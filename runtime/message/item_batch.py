"""Items of many streams of one reader in one record: how the block of such a record is written and read. No I/O.

The record's `at` says how many items there are, its `nbytes` how long the whole is. The block holds one column after
the other, each with a row for each item: whose stream it is (request, and the input that caused it: sequence and lane),
its ordinal, the length of its packed value, its kind. Behind them lie the values as one list of msgpack. So the record
is the commit of all its items: a successor reads from the columns what was sent.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgpack
import numpy as np
from numpy.typing import NDArray

from ...shm.errors import MessageError
from ...shm.tensor import inline_array, pack_tensor, unpack_tensor
from .encoding import INLINE_TENSOR_NBYTES
from .header import Kind
from .values import TENSOR_CODE, packed, plain, unknown_code, unpacked

# A longer item travels in a record of its own: it costs more to copy than the record does.
MOST_ITEM_NBYTES = 4096
_HEAD = struct.Struct("=QQQ")
_WORD = array("I").itemsize
_ITEM, _END = int(Kind.ITEM), int(Kind.END)
_KINDS = frozenset((_ITEM, _END))
_LIST = struct.Struct(">BI")  # msgpack's array 32: a byte, and how many elements follow
_LIST_CODE = 0xDD
_SCALARS = frozenset((type(None), bool, int, float, str, bytes))
_pack = msgpack.Packer().pack
_NOTHING = _pack(None)


class _TooLarge(Exception):
    """An array that does not travel inside a batch."""


def pack_item(value: Any) -> bytes | None:
    """The packed value of an item; None for one that is too large for a batch. Raises MessageError for a value that no
    message carries, with the path to it.
    """
    if type(value) in _SCALARS or (type(value) is dict and _is_flat(value)):
        try:
            item: bytes = _pack(value)
        except (OverflowError, ValueError, TypeError):
            item = packed(value, _place)  # raises the same, in our words
    else:
        try:
            item = packed(plain(value), _place)
        except _TooLarge:
            return None
    return item if len(item) <= MOST_ITEM_NBYTES else None


def _is_flat(value: dict[Any, Any]) -> bool:
    """Whether a dict holds nothing but scalars, by names: msgpack alone then does with it as `plain` and `packed`."""
    for name, each in value.items():  # noqa: SIM110  a generator costs as much again
        if type(name) is not str or type(each) not in _SCALARS:
            return False
    return True


def _place(each: NDArray[Any]) -> msgpack.ExtType:
    if each.nbytes > INLINE_TENSOR_NBYTES:
        raise _TooLarge
    return msgpack.ExtType(TENSOR_CODE, pack_tensor(each, 0, inline=True))


def head_of(request: int, cause_sequence: int, cause_lane: int) -> bytes:
    """What names a stream in each batch: it stays the same for all items of that stream."""
    return _HEAD.pack(request, cause_sequence, cause_lane)


def packed_batch(heads: Sequence[bytes], ordinals: Sequence[int], items: Sequence[bytes]) -> bytes:
    """The bytes of the block: of each item what names its stream (`head_of`), its ordinal, and the item as `pack_item`
    gives it; an empty one is the end of its stream.
    """
    count = len(items)
    if all(items):
        kinds = bytes((_ITEM,)) * count
    else:
        kinds = bytes([_ITEM if each else _END for each in items])
        items = [each or _NOTHING for each in items]
    return b"".join(
        (
            *heads,
            array("I", ordinals).tobytes(),
            array("I", map(len, items)).tobytes(),
            kinds,
            _LIST.pack(_LIST_CODE, count),
            *items,
        )
    )


class Items(NamedTuple):
    """What a batch brings: of each item the request, the kind (ITEM or END) and the value."""

    requests: list[int]
    kinds: Sequence[int]
    values: list[Any]


class Sent(NamedTuple):
    """Of one item of a batch: the input that caused it, its ordinal and its kind."""

    lane: int
    sequence: int
    ordinal: int
    kind: int


def read_items(block: memoryview, count: int, nbytes: int) -> Items:
    """The items of a batch, copied out of its block. Raises MessageError for bytes that are no batch."""
    at = _check_columns(block, count, nbytes)
    kinds = bytes(block[at - count : at])
    if not _KINDS.issuperset(kinds):
        raise MessageError("a batch of items holds something else than items and ends")
    values = unpacked(block[at:nbytes], _array)
    if type(values) is not list or len(values) != count:
        raise MessageError(f"a batch of {count} items does not hold as many values")
    return Items(block[: count * _HEAD.size].cast("Q")[::3].tolist(), kinds, values)


def read_sent(block: memoryview, count: int, nbytes: int) -> Iterable[Sent]:
    """What a batch says that was sent. Raises MessageError for bytes that are no batch."""
    at = _check_columns(block, count, nbytes)
    heads = block[: count * _HEAD.size].cast("Q")
    ordinals = block[count * _HEAD.size : count * (_HEAD.size + _WORD)].cast("I")
    kinds = block[at - count : at]
    return map(Sent, heads[2::3].tolist(), heads[1::3].tolist(), ordinals.tolist(), kinds.tolist())


def _check_columns(block: memoryview, count: int, nbytes: int) -> int:
    """Where the columns end."""
    end = count * (_HEAD.size + 2 * _WORD + 1)
    if count < 1 or not end + _LIST.size <= nbytes <= len(block):
        raise MessageError(f"a batch of {count} items cannot have {nbytes} bytes in a block of {len(block)}")
    return end


def _array(code: int, data: bytes) -> np.ndarray:
    if code != TENSOR_CODE:
        raise unknown_code(code)
    tensor, inline = unpack_tensor(data)
    if tensor.inline_nbytes is None:
        raise MessageError("an item of a batch refers to a block")
    return inline_array(tensor, inline)
