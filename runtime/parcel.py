"""A value packed for the road: metadata as msgpack, tensors in a block of shared memory or inside the record.

Tensors that lie in one block already, a loan or a received one, are sent by reference. All others are copied, once,
into a fresh block; so is everything when a message mixes blocks, or holds more other data than there is room for
beside a reference.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray

from ..shm.errors import MessageError
from ..shm.lane import OWN, Producer, Source
from ..shm.layout import LINE_NBYTES, round_up
from ..shm.lease import Lease
from ..shm.pool import Pool
from ..shm.slab import METADATA_NBYTES, Block
from ..shm.tensor import inline_array, pack_tensor, unpack_tensor
from .message import INLINE_NBYTES, Flag, Header, write_record
from .short import (
    INLINE_TENSOR_NBYTES,
    SHORT,
    Short,
    array_of,
    copy_in,
    freeze,
    holder_of,
    lend_lease,
    offset_in,
    open_short,
    pack_short,
)

TENSOR_CODE = 1
_DEEPEST = 64
_IN_BLOCK = Flag.IN_BLOCK
_as_tuple = tuple.__new__


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
        self._array: NDArray[Any] | list[NDArray[Any]] | None = None  # keeps a loan from being freed while it waits
        self._held: _Hold | None = None
        short = pack_short(value, is_fields)
        if short is None:
            self._pack_any(value, pool)
        else:
            self._take_short(short, pool)

    def _take_short(self, short: Short, pool: Pool) -> None:
        self.flags, self.metadata, self.at, array, self.holder = short
        if array is None:
            return
        if self.holder is None:
            self.holder = pool.take(array.nbytes)
            self._held = _Hold(self.holder)
            copy_in(array, self.holder)
        else:
            self._array = array
            if isinstance(self.holder, Block):
                freeze(array, self.holder)

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
        referred: list[NDArray[Any]] = []
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
                self.holder, self._array = holder, referred
                referred.append(obj)
                return msgpack.ExtType(TENSOR_CODE, pack_tensor(obj, offset_in(obj, holder)))
            if obj.nbytes <= INLINE_TENSOR_NBYTES:
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
            for each in self._array or ():
                freeze(each, self.holder)
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
        if isinstance(holder, Block):
            holder.lends += 1
            slab, block, generation = holder.slab.identifier, holder.index, holder.generation
            row = producer.lend(slab, block, holder)
        elif holder is not None:
            row, slab, block, generation = lend_lease(producer, holder)
        inline = b"" if flags & _IN_BLOCK else metadata
        where = row, slab, block, generation, self.at
        write_record(producer.segment.bytes, producer.slot(), kind, flags, *head, len(metadata), *where, inline)
        producer.publish()


def open_parcel(header: Header, lease: Lease | None) -> Any:
    """The value of a record: tensors are read-only arrays under the lease.

    Raises MessageError if the bytes are no message of ours.
    """
    if header.flags & SHORT:
        return open_short(header, lease)

    def place(code: int, packed: bytes) -> Any:
        if code != TENSOR_CODE:
            raise MessageError(f"a message holds an extension of unknown code {code}")
        tensor, data = unpack_tensor(packed)
        return array_of(tensor, lease) if tensor.inline_nbytes is None else inline_array(tensor, data)

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


def source_of(header: Header, lane: int, sequence: int) -> Source:
    """The lease that a record gives its reader."""
    return _as_tuple(Source, (lane, header.row, sequence + 1)) if header.flags & Flag.BLOCK else OWN


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
