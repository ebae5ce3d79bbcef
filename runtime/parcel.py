"""A value packed for the road: metadata as msgpack, tensors in a block of shared memory or inside the record.

Tensors that lie in one block already, a loan or a received one, are sent by reference. All others are copied, once,
into a fresh block; so is everything when a message mixes blocks, or holds more other data than there is room for
beside a reference.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from functools import lru_cache
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray

from ..shm.errors import MessageError
from ..shm.lane import OWN, Producer, Source
from ..shm.layout import LINE_NBYTES, round_up
from ..shm.lease import Lease, LeasedArray
from ..shm.slab import METADATA_NBYTES, Block, LoanBase, Pool
from ..shm.tensor import Description, describe, description_of, inline_array, pack_tensor, unpack_tensor
from .message import INLINE_NBYTES, Flag, Header, write_record

TENSOR_CODE = 1
# A tensor up to this size travels in the metadata; with its description it just fits a record.
_INLINE_TENSOR_NBYTES = 96
_DEEPEST = 64
_LONGEST_NAME = 255
_SCALARS = frozenset((type(None), bool, int, float, str, bytes))
_ARRAY, _ARRAY_IN_BLOCK, _IN_BLOCK = Flag.ARRAY, Flag.ARRAY | Flag.BLOCK, Flag.IN_BLOCK
_SHORT = Flag.ARRAY | Flag.PLAIN
_as_tuple = tuple.__new__
_pack_plain, _unpack = msgpack.Packer().pack, msgpack.unpackb


class _OutsideBlock(Exception):
    """Not everything finds room in the block that the first array lies in: all must be copied into a fresh one."""


class _Hold:
    """Keeps a parcel's fresh block until it is ended or dies."""

    __slots__ = ("_block",)

    def __init__(self, block: Block) -> None:
        block.views = 1
        self._block: Block | None = block

    def end(self) -> None:
        block, self._block = self._block, None
        if block is not None:
            block.unviewed()

    def __del__(self) -> None:
        # May run in any thread, inside any function: the pool looks into this queue when it next needs a block.
        if self._block is not None:
            self._block.pool.unviewed.append(self._block)


class Parcel:
    """One encoded value, ready to be published any number of times. It keeps its block until it is closed or dies.

    Raises MessageError for what a message cannot carry, naming the path to it; OutOfMemory when the pool is exhausted.
    """

    __slots__ = ("_array", "_held", "at", "flags", "holder", "metadata")

    metadata: bytes

    def __init__(self, value: object, pool: Pool, *, is_fields: bool = False) -> None:
        self.flags = Flag.FIELDS if is_fields else 0
        self.holder: Block | Lease | None = None
        self.at = 0
        self._array: NDArray[Any] | None = None  # keeps a loan from being freed while the parcel waits
        self._held: _Hold | None = None
        name, sole = None, value
        if is_fields and type(value) is dict and len(value) == 1:
            ((name, sole),) = value.items()
        if type(sole) is np.ndarray:
            packed = self._pack_sole(name, sole, pool)
        else:
            packed = self._pack_plain(value)
        if not packed:
            self._pack_any(value, pool)

    # -- most messages: numbers, or one array ------------------------------------------------------------------------

    def _pack_plain(self, value: object) -> bool:
        """Packs a number, a text or None, or fields of such, if they find room in the record."""
        if type(value) not in _SCALARS and not (
            self.flags and type(value) is dict and _SCALARS.issuperset(map(type, value.values()))
        ):
            return False
        try:
            self.metadata = _pack_plain(value)
        except (OverflowError, ValueError):
            return False  # an int of over 64 bits, say: whoever packs anything says so
        if len(self.metadata) > INLINE_NBYTES:
            return False
        self.flags |= Flag.PLAIN
        return True

    def _pack_sole(self, name: str | None, array: NDArray[Any], pool: Pool) -> bool:
        """Packs one array, bare or as the only field, without msgpack; False if its description finds no room."""
        dtype, shape, nbytes = array.dtype, array.shape, array.nbytes
        if nbytes <= _INLINE_TENSOR_NBYTES:
            head = describe_sole(name, dtype, shape, None, 0, nbytes)
            self.metadata = head + array.tobytes()
            if len(self.metadata) > INLINE_NBYTES:
                return False
            self.flags |= _ARRAY
        else:
            holder, strides, at = holder_of(array), None, 0
            if holder is not None:
                strides, at = None if array.flags.c_contiguous else array.strides, _offset_in(array, holder)
            head = self.metadata = describe_sole(name, dtype, shape, strides, at, None)
            if len(head) > INLINE_NBYTES:
                return False
            self._place(array, holder or pool.take(nbytes))
            self.flags |= _ARRAY_IN_BLOCK
        self.at = len(head)
        return True

    def _place(self, array: NDArray[Any], holder: Block | Lease) -> None:
        """Refers to where an array lies already, or copies it into a fresh block."""
        self.holder = holder
        if isinstance(holder, Block) and not holder.views and not holder.lends:
            self._held = _Hold(holder)
            np.ndarray(array.shape, array.dtype, holder.slab.mapping, holder.start)[...] = array
        else:
            self._array = array
            if isinstance(holder, Block):
                _freeze(array)

    # -- all others --------------------------------------------------------------------------------------------------

    def _pack_any(self, value: object, pool: Pool) -> None:
        try:
            self.metadata, copies = self._pack(value, by_reference=True)
            self._check_metadata_room()
        except _OutsideBlock:
            self.holder = self._array = None
            self.metadata, copies = self._pack(value, by_reference=False)
        self._settle(pool, copies)

    def _pack(self, value: object, *, by_reference: bool) -> tuple[bytes, list[tuple[NDArray[Any], int]]]:
        copies: list[tuple[NDArray[Any], int]] = []
        end = 0

        def place(obj: Any) -> Any:
            nonlocal end
            if not isinstance(obj, np.ndarray):
                return plain(obj)
            if isinstance(obj, np.ma.MaskedArray):
                raise MessageError("a masked array would lose its mask; send .filled(), or data and mask")
            holder = holder_of(obj) if by_reference else None
            if holder is not None:
                if (self.holder is not None and self.holder is not holder) or copies:
                    raise _OutsideBlock
                self.holder, self._array = holder, obj
                return msgpack.ExtType(TENSOR_CODE, pack_tensor(obj, _offset_in(obj, holder)))
            if obj.nbytes <= _INLINE_TENSOR_NBYTES:
                return msgpack.ExtType(TENSOR_CODE, pack_tensor(obj, 0, inline=True))
            if self.holder is not None:
                raise _OutsideBlock
            contiguous = np.ascontiguousarray(obj) if obj.ndim else obj
            copies.append((contiguous, end))
            packed = pack_tensor(contiguous, end)
            end = round_up(end + obj.nbytes, LINE_NBYTES)
            return msgpack.ExtType(TENSOR_CODE, packed)

        try:
            check_keys(value, "message", 0)
            return msgpack.packb(value, default=place), copies
        except (TypeError, ValueError, OverflowError) as error:
            if isinstance(error, MessageError):
                raise
            raise MessageError(complaint(value) or f"the message cannot be packed: {error}") from None

    def _check_metadata_room(self) -> None:
        """Metadata that a record cannot hold goes behind a loan, once; a received block has no such room."""
        if self.holder is None or len(self.metadata) <= INLINE_NBYTES:
            return
        if isinstance(self.holder, Lease) or self.holder.has_metadata or len(self.metadata) > METADATA_NBYTES:
            raise _OutsideBlock

    def _settle(self, pool: Pool, copies: list[tuple[NDArray[Any], int]]) -> None:
        """Finds a place for the tensors' bytes and for metadata that does not fit the record."""
        outside = len(self.metadata) > INLINE_NBYTES
        if self.holder is None and (copies or outside):
            end = sum(round_up(array.nbytes, LINE_NBYTES) for array, _ in copies)
            self._fill(pool.take(end + len(self.metadata) * outside), copies, end, outside=outside)
        elif isinstance(self.holder, Block):
            if outside:
                self._append(self.holder, self.holder.slab.block_nbytes - METADATA_NBYTES)
            if self._array is not None:
                _freeze(self._array)
        if self.holder is not None:
            self.flags |= Flag.BLOCK

    def _append(self, block: Block, at: int) -> None:
        self.at = at
        block.has_metadata = True
        block.bytes()[at : at + len(self.metadata)] = self.metadata
        self.flags |= Flag.IN_BLOCK

    def _fill(self, block: Block, copies: list[tuple[NDArray[Any], int]], end: int, *, outside: bool) -> None:
        self.holder, self._held = block, _Hold(block)
        room = block.bytes()
        for array, at in copies:
            np.frombuffer(room, np.uint8, array.nbytes, at)[:] = array.reshape(-1).view(np.uint8)
        if outside:
            self._append(block, end)

    # -- on the road -------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Lets go of the block; leases of it live on."""
        if self._held is not None:
            held, self._held = self._held, None
            held.end()
        self.holder = self._array = None

    def can_go(self, producer: Producer) -> bool:
        """Whether the lane has a free record, and a free row if this lends a block."""
        return producer.room() > 0 and (self.holder is None or producer.can_lend())

    def publish(self, producer: Producer, kind: int, flags: int, head: tuple[int, ...]) -> None:
        """Writes one record and makes it visible; only if `can_go`.

        `head` holds the header's numbers from `source` to `cause_sequence`.
        """
        holder, metadata = self.holder, self.metadata
        flags |= self.flags
        row = slab = block = generation = 0
        if holder is not None:
            slab, generation = holder.slab.identifier, holder.generation
            if isinstance(holder, Block):
                block = holder.index
                holder.lends += 1
                row = producer.lend(slab, block, holder)
            else:
                block = holder.block
                row = producer.lend(slab, block, holder, holder.source)
        inline = b"" if flags & _IN_BLOCK else metadata
        where = row, slab, block, generation, self.at
        write_record(producer.segment.bytes, producer.slot(), kind, flags, *head, len(metadata), *where, inline)
        producer.publish()


def open_parcel(header: Header, lease: Lease | None) -> Any:
    """The value of a record: tensors are read-only arrays under the lease.

    Raises MessageError if the bytes are no message of ours.
    """
    if header.flags & _SHORT:
        return _open_sole(header, lease) if header.flags & _ARRAY else _open_plain(header)

    def place(code: int, packed: bytes) -> Any:
        if code != TENSOR_CODE:
            raise MessageError(f"a message holds an extension of unknown code {code}")
        tensor, data = unpack_tensor(packed)
        return _array(tensor, lease) if tensor.inline_nbytes is None else inline_array(tensor, data)

    if header.flags & Flag.IN_BLOCK:
        if lease is None or header.at + header.nbytes > lease.slab.block_nbytes:
            raise MessageError("a message's metadata does not lie in its block")
        packed: bytes | memoryview = lease.bytes()[header.at : header.at + header.nbytes]
    else:
        packed = header.inline[: header.nbytes]
    try:
        return msgpack.unpackb(packed, ext_hook=place)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        if isinstance(error, MessageError):
            raise
        raise MessageError(f"a message cannot be unpacked: {error}") from None


def _open_plain(header: Header) -> Any:
    """The value of a message without tensors."""
    try:
        return _unpack(header.inline[: header.nbytes])
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise MessageError(f"a message cannot be unpacked: {error}") from None


def _open_sole(header: Header, lease: Lease | None) -> Any:
    """The value of a message that is one array."""
    at, inline = header.at, header.inline
    name, tensor = sole_described(inline[:at])
    if (name is None) == bool(header.flags & Flag.FIELDS):
        raise MessageError("a message that is one array says of which field it is, or is no message of fields")
    if tensor.inline_nbytes is None:
        array = _array(tensor, lease)
    else:
        data = inline[at : header.nbytes]
        if len(data) != tensor.inline_nbytes:
            raise MessageError(f"a tensor of {tensor.inline_nbytes} bytes came with {len(data)}")
        array = inline_array(tensor, data)
    return array if name is None else {name: array}


def _array(tensor: Description, lease: Lease | None) -> NDArray[Any]:
    if lease is None:
        raise MessageError("a message describes a tensor in a block, but refers to none")
    if tensor.low < 0 or tensor.high > lease.slab.block_nbytes:
        raise MessageError(f"a tensor of shape {tensor.shape} at {tensor.at} does not lie in its block")
    try:
        return lease.array(tensor.at, tensor.shape, tensor.dtype, tensor.strides)
    except (ValueError, TypeError) as error:
        raise MessageError(f"a tensor of shape {tensor.shape} cannot be: {error}") from None


@lru_cache(maxsize=1024)
def describe_sole(
    name: str | None,
    dtype: np.dtype[Any],
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
    return bytes((length,)) + field + describe(dtype, shape, strides, at, inline_nbytes)


@lru_cache(maxsize=1024)
def sole_described(packed: bytes) -> tuple[str | None, Description]:
    """The inverse of `describe_sole`. Raises MessageError for bytes that it cannot have made."""
    length = packed[0] if packed else 0
    try:
        name = packed[1:length].decode() if length else None
    except UnicodeDecodeError as error:
        raise MessageError(f"the name of a field is damaged: {error}") from None
    return name, description_of(packed[max(1, length) :])


def source_of(header: Header, lane: int, sequence: int) -> Source:
    """The lease that a record gives its reader."""
    return _as_tuple(Source, (lane, header.row, sequence + 1)) if header.flags & Flag.BLOCK else OWN


def holder_of(array: NDArray[Any]) -> Block | Lease | None:
    """The block that an array lies in, if it is a loan, or the lease that it was received under; or a view of such."""
    base: Any = array.base
    while type(base) is np.ndarray:
        base = base.base
    if type(base) is LoanBase:
        return base.block
    while isinstance(base, np.ndarray) and type(base) is not LeasedArray:  # a view of a subclass
        base = base.base
    return base.lease if type(base) is LeasedArray else base.block if type(base) is LoanBase else None


def _offset_in(array: NDArray[Any], holder: Block | Lease) -> int:
    return int(array.__array_interface__["data"][0]) - holder.address()


def _freeze(array: NDArray[Any]) -> None:
    """Publishing ends writing: the array and those that it is a view of."""
    each: Any = array
    while isinstance(each, np.ndarray):
        each.flags.writeable = False
        each = each.base


def plain(obj: Any) -> Any:
    """A dataclass as a dict, a scalar of numpy as Python's. Raises TypeError for what a message cannot carry."""
    if is_dataclass(obj) and not isinstance(obj, type):
        return {each.name: getattr(obj, each.name) for each in fields(obj)}
    if isinstance(obj, np.generic):
        return obj.item() if not isinstance(obj, np.void) else np.asarray(obj)
    raise TypeError(f"a {type(obj).__name__} cannot be sent")


def check_keys(value: object, path: str, depth: int) -> None:
    """Raises MessageError for a key that is not a str: the receiver would refuse it."""
    if depth > _DEEPEST:
        raise MessageError(f"{path} is nested deeper than {_DEEPEST} levels")
    if type(value) is dict:
        for key, inner in value.items():
            if type(key) is not str:
                raise MessageError(f"{path} has the key {key!r} of type {type(key).__name__}; keys must be str")
            if type(inner) in _CONTAINERS:
                check_keys(inner, f"{path}[{key!r}]", depth + 1)
    elif type(value) in (list, tuple):
        for index, inner in enumerate(value):  # type: ignore[arg-type]
            if type(inner) in _CONTAINERS:
                check_keys(inner, f"{path}[{index}]", depth + 1)


_CONTAINERS: frozenset[type] = frozenset((dict, list, tuple))
_SENDABLE = "None, bool, int (64 bits), float, str, bytes, lists, dicts with str keys, dataclasses and ndarrays"


def complaint(value: object, path: str = "message") -> str | None:
    """Names the first thing in a value that cannot be sent, by the path to it."""
    if isinstance(value, dict):
        inner = ((f"{path}[{key!r}]", each) for key, each in value.items())
    elif isinstance(value, (list, tuple)):
        inner = ((f"{path}[{index}]", each) for index, each in enumerate(value))
    elif is_dataclass(value) and not isinstance(value, type):
        inner = ((f"{path}.{each.name}", getattr(value, each.name)) for each in fields(value))
    elif isinstance(value, int) and not -(1 << 63) <= value < 1 << 64:
        return f"{path} is an int of {value.bit_length()} bits; 64 fit"
    elif value is None or isinstance(
        value, (bool, int, float, str, bytes, bytearray, memoryview, np.ndarray, np.generic)
    ):
        return None
    else:
        return f"{path} is a {type(value).__name__}; a message carries {_SENDABLE}"
    return next((found for where, each in inner if (found := complaint(each, where))), None)
