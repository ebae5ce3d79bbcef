"""Any value, encoded and kept until it is published: its metadata, and its tensors in a block or inside the metadata.

Tensors that lie in one block already, that of a loan or of a received array, are sent by reference. All others are
copied, once, into a fresh block. Everything is copied if the tensors of a message lie in several blocks, or if beside
the reference there is no place for the other data.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import msgpack
from numpy.typing import NDArray

from ...shm.block import METADATA_NBYTES, Block
from ...shm.layout import LINE_NBYTES, round_up
from ...shm.pool import Pool
from ...shm.producer import Producer
from ...shm.tensor import describe, pack_tensor, token_of
from ..error_text import name_of, sendable, text_of
from ..errors import MessageError, OutOfMemory, SlabwireError
from .encoding import INLINE_TENSOR_NBYTES, encode
from .header import INLINE_NBYTES, Flag, write_record
from .lending import NOWHERE, Holder, copy_in, freeze, holder_of, lend, offset_in
from .values import TENSOR_CODE, packed, plain, plain_fields

logger = logging.getLogger("slabwire")

_IN_BLOCK = Flag.IN_BLOCK
_LONGEST_CODE = 64

# Arrays to be copied, each with its offset in the fresh block.
_Copies = list[tuple[NDArray[Any], int]]


class _SeveralBlocks(Exception):
    """The block of the first array does not hold everything: all must be copied into a fresh one."""


class _Hold:
    """Keeps a payload's fresh block until the hold is ended or dies."""

    __slots__ = ("_block",)

    def __init__(self, block: Block) -> None:
        block.views = 1
        self._block: Block | None = block

    def end(self) -> None:
        block, self._block = self._block, None
        if block is not None:
            block.view_died()

    def __del__(self) -> None:
        # May run in any thread, inside any function: the pool looks into this queue when it next needs a block.
        if self._block is not None:
            self._block.pool.dead_views.append(self._block)


class Payload:
    """One encoded value, ready to be published any number of times. It keeps its block until it is closed or dies.

    Raises MessageError for what a message cannot carry, naming the path to it; OutOfMemory when the pool is exhausted.
    """

    __slots__ = ("_held", "_referred", "at", "flags", "holder", "metadata")

    metadata: bytes

    def __init__(self, value: Any, pool: Pool, *, is_fields: bool = False) -> None:
        self._held: _Hold | None = None
        self._referred: Sequence[NDArray[Any]] = ()  # keeps loans from being freed while the payload waits
        encoded = encode(value, is_fields)
        if encoded is None:
            self.flags, self.at = Flag.FIELDS if is_fields else 0, 0
            self.holder: Holder | None = None
            value = plain_fields(value) if is_fields else plain(value)
            try:
                copies, end = self._encode(value, by_reference=True)
            except _SeveralBlocks:
                self.holder, self._referred = None, ()
                copies, end = self._encode(value, by_reference=False)
            self._settle(pool, copies, end)
            return
        self.flags, self.metadata, self.at, array, self.holder = encoded
        if array is None:
            return
        if self.holder is None:
            self._settle(pool, [(array, 0)], array.nbytes)
        else:
            self._referred = (array,)
            self._settle(pool, [], 0)

    def _encode(self, value: Any, *, by_reference: bool) -> tuple[_Copies, int]:
        """Makes the metadata. Returns what must be copied into a fresh block, and the bytes that it takes there."""
        copies: _Copies = []
        referred: list[NDArray[Any]] = []
        end = 0

        def place(array: NDArray[Any]) -> msgpack.ExtType:
            nonlocal end
            holder = holder_of(array) if by_reference else None
            if holder is not None:
                if (self.holder is not None and self.holder is not holder) or copies:
                    raise _SeveralBlocks
                self.holder, self._referred = holder, referred
                referred.append(array)
                return msgpack.ExtType(TENSOR_CODE, pack_tensor(array, offset_in(array, holder)))
            if array.nbytes <= INLINE_TENSOR_NBYTES:
                return msgpack.ExtType(TENSOR_CODE, pack_tensor(array, 0, inline=True))
            if self.holder is not None:
                raise _SeveralBlocks
            copies.append((array, end))
            described = describe(token_of(array.dtype), array.shape, None, end, None)
            end = round_up(end + array.nbytes, LINE_NBYTES)
            return msgpack.ExtType(TENSOR_CODE, described)

        self.metadata = packed(value, place)
        if len(self.metadata) > INLINE_NBYTES and not self._has_place_outside():
            raise _SeveralBlocks
        return copies, end

    def _has_place_outside(self) -> bool:
        """Whether metadata that no record can hold has a place: behind a loan, once; never behind a received block."""
        block = self.holder
        return block is None or (
            isinstance(block, Block) and not block.has_metadata and len(self.metadata) <= METADATA_NBYTES
        )

    def _settle(self, pool: Pool, copies: _Copies, end: int) -> None:
        """Gives the tensors' bytes their place, and metadata that the record cannot hold."""
        outside = len(self.metadata) > INLINE_NBYTES
        block = self.holder
        if block is None:
            if not (copies or outside):
                return
            block = self.holder = pool.take(end + len(self.metadata) * outside)
            self._held = _Hold(block)
            for array, at in copies:
                copy_in(array, block, at)
        else:
            end = block.slab.block_nbytes - METADATA_NBYTES
        self.flags |= Flag.BLOCK
        if isinstance(block, Block):
            if outside:
                self._append(block, end)
            for each in self._referred:
                freeze(each, block)

    def _append(self, block: Block, at: int) -> None:
        self.at = at
        block.has_metadata = True
        block.bytes()[at : at + len(self.metadata)] = self.metadata
        self.flags |= Flag.IN_BLOCK

    def close(self) -> None:
        """Lets go of the block; leases of it live on."""
        if self._held is not None:
            held, self._held = self._held, None
            held.end()
        self.holder, self._referred = None, ()

    def can_go(self, producer: Producer) -> bool:
        """Whether the lane has a free record, and a free row if the payload lends a block."""
        return producer.free_records() > 0 and (self.holder is None or producer.can_lend())

    def publish(self, producer: Producer, kind: int, flags: int, head: tuple[int, ...]) -> None:
        """Writes one record and makes it visible; only if `can_go`.

        `head` holds the header's numbers from `source` to `cause_sequence`.
        """
        metadata = self.metadata
        flags |= self.flags
        place = NOWHERE if self.holder is None else lend(producer, self.holder)
        inline, nbytes = b"" if flags & _IN_BLOCK else metadata, len(metadata)
        write_record(producer.segment.bytes, producer.slot(), kind, flags, *head, nbytes, *place, self.at, inline)
        producer.publish()


def payload_from(actor: str, port: str, value: Any, pool: Pool) -> Payload:
    """The payload of what an actor sends by a port. An error names both, since its reader sent something else."""
    try:
        return Payload(value, pool)
    except MessageError as error:
        raise MessageError(f"{actor}.{port} cannot send this: {error}") from None


def wire_form(error: SlabwireError) -> list[str]:
    """The code and the text that are sent. Never raises, although both may come from a class of the user."""
    return [_code_of(error), text_of(error)]


def failure(error: SlabwireError, actor: str, pool: Pool) -> Payload:
    """The error's code and text. Where there is no block for a long text, as much of it as fits the record."""
    code, text = wire_form(error)
    try:
        return Payload([code, text], pool)
    except OutOfMemory:  # most likely the error is about the same lack of memory
        logger.error("%s: %s", actor, text)
        return Payload([code, _cut(text, INLINE_NBYTES - len(code.encode()) - 8)], pool)


def _code_of(error: SlabwireError) -> str:
    try:
        code = error.code
        if isinstance(code, str):
            return sendable(code, _LONGEST_CODE)
    except Exception:
        logger.error("the code of an error of class %s cannot be had", name_of(error))
    return SlabwireError.code


def _cut(text: str, nbytes: int) -> str:
    """As much of a text as fits `nbytes` of UTF-8, with dots at the end if it was cut."""
    packed = text.encode()
    return text if len(packed) <= nbytes else packed[: nbytes - 3].decode(errors="ignore") + "..."
