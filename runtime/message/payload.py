"""A value packed for the road: metadata as msgpack, tensors in a block of shared memory or inside the record.

Tensors that lie in one block already, a loan or a received one, are sent by reference. All others are copied, once,
into a fresh block; so is everything when a message mixes blocks, or holds more other data than there is room for
beside a reference.
"""

from __future__ import annotations

from typing import Any

import msgpack
from numpy.typing import NDArray

from ...shm.block import METADATA_NBYTES, Block
from ...shm.errors import MessageError
from ...shm.lane import OWN, Producer, Source
from ...shm.layout import LINE_NBYTES, round_up
from ...shm.lease import Lease
from ...shm.pool import Pool
from ...shm.tensor import describe, inline_array, pack_tensor, token_of, unpack_tensor
from .fast_path import (
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
from .header import INLINE_NBYTES, Flag, Header, write_record
from .values import packed, plain, plain_fields

TENSOR_CODE = 1
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

    def __init__(self, value: Any, pool: Pool, *, is_fields: bool = False) -> None:
        self.flags = Flag.FIELDS if is_fields else 0
        self.holder: Block | Lease | None = None
        self.at = 0
        self._array: NDArray[Any] | list[NDArray[Any]] | None = None  # keeps a loan from being freed while it waits
        self._held: _Hold | None = None
        short = pack_short(value, is_fields)
        if short is None:
            self._pack_any(plain_fields(value) if is_fields else plain(value), pool)
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

    def _pack_any(self, value: Any, pool: Pool) -> None:
        try:
            self.metadata, copies = self._pack(value, by_reference=True)
            self._check_metadata_room()
        except _OutsideBlock:
            self.holder = self._array = None
            self.metadata, copies = self._pack(value, by_reference=False)
        self._settle(pool, copies)

    def _pack(self, value: Any, *, by_reference: bool) -> tuple[bytes, list[tuple[NDArray[Any], int]]]:
        copies: list[tuple[NDArray[Any], int]] = []
        referred: list[NDArray[Any]] = []
        end = 0

        def place(array: NDArray[Any]) -> msgpack.ExtType:
            nonlocal end
            holder = holder_of(array) if by_reference else None
            if holder is not None:
                if (self.holder is not None and self.holder is not holder) or copies:
                    raise _OutsideBlock
                self.holder, self._array = holder, referred
                referred.append(array)
                return msgpack.ExtType(TENSOR_CODE, pack_tensor(array, offset_in(array, holder)))
            if array.nbytes <= INLINE_TENSOR_NBYTES:
                return msgpack.ExtType(TENSOR_CODE, pack_tensor(array, 0, inline=True))
            if self.holder is not None:
                raise _OutsideBlock
            copies.append((array, end))
            described = describe(token_of(array.dtype), array.shape, None, end, None)
            end = round_up(end + array.nbytes, LINE_NBYTES)
            return msgpack.ExtType(TENSOR_CODE, described)

        return packed(value, place), copies

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
        for array, at in copies:
            copy_in(array, block, at)
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


def parcel_from(actor: str, port: str, value: Any, pool: Pool) -> Parcel:
    """A parcel of what an actor sends by a port, which errors name: whoever gets them sent something else."""
    try:
        return Parcel(value, pool)
    except MessageError as error:
        raise MessageError(f"{actor}.{port} cannot send this: {error}") from None


def open_parcel(header: Header, lease: Lease | None) -> Any:
    """The value of a record: tensors are read-only arrays under the lease.

    Raises MessageError if the bytes are no message of ours.
    """
    if header.flags & SHORT:
        return open_short(header, lease)

    def place(code: int, data: bytes) -> Any:
        if code != TENSOR_CODE:
            raise MessageError(f"a message holds an extension of unknown code {code}")
        tensor, inline = unpack_tensor(data)
        return array_of(tensor, lease) if tensor.inline_nbytes is None else inline_array(tensor, inline)

    if header.flags & Flag.IN_BLOCK:
        if lease is None or header.at + header.nbytes > lease.slab.block_nbytes:
            raise MessageError("a message's metadata does not lie in its block")
        metadata: bytes | memoryview = lease.bytes()[header.at : header.at + header.nbytes]
    else:
        metadata = header.inline[: header.nbytes]
    try:
        return msgpack.unpackb(metadata, ext_hook=place)
    except MessageError:
        raise
    except Exception as error:  # msgpack's own errors have no common base
        raise MessageError(f"a message cannot be unpacked: {error}") from None


def source_of(header: Header, lane: int, sequence: int) -> Source:
    """The lease that a record gives its reader."""
    return _as_tuple(Source, (lane, header.row, sequence + 1)) if header.flags & Flag.BLOCK else OWN
