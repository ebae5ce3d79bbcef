"""Encodes and publishes the most common messages in one go, without a `Payload`.

In front of a lane with room nothing has to be kept, and Python's own price is most of what such a message costs.
"""

from __future__ import annotations

from typing import Any, cast

from numpy.typing import NDArray

from ...shm.block import Block
from ...shm.pool import Pool
from ...shm.producer import Producer
from .encoding import encode
from .header import Flag, Kind, write_record
from .lending import NOWHERE, Holder, Reference, copy_in, freeze, lend

_IN_BLOCK = Flag.BLOCK | Flag.IN_BLOCK


def encode_and_publish(
    value: Any, pool: Pool, producer: Producer, kind: int, flags: int, head: tuple[int, ...], *, is_fields: bool = False
) -> bool:
    """Encodes a value and publishes it at once. False, with nothing done, if `encode` cannot encode the value or the
    lane has no room: then the value needs a Payload. `head` holds the header's numbers from `source` to
    `cause_sequence`.

    Raises OutOfMemory when the pool is exhausted.
    """
    if producer.free_records() < 1 or (encoded := encode(value, is_fields)) is None:
        return False
    own, metadata, at, array, holder = encoded
    place = NOWHERE if array is None else _lent(producer, pool, array, holder)
    if place is None:
        return False
    nbytes = len(metadata)
    try:
        write_record(producer.segment.bytes, producer.slot(), kind, flags | own, *head, nbytes, *place, at, metadata)
        producer.publish()
    except BaseException:  # for example Ctrl-C while an array was copied, which Python raises only now
        if array is not None:
            producer.take_back(place[0])
        raise
    return True


def _lent(producer: Producer, pool: Pool, array: NDArray[Any], holder: Holder | None) -> Reference | None:
    """Lends the block of an array, or a block that the array is copied into. None if the lane has no free row."""
    if holder is not None:
        if not producer.can_lend():
            return None
        if isinstance(holder, Block):
            freeze(array, holder)
        return lend(producer, holder)
    taken = _lent_block(producer, pool, array.nbytes)
    if taken is None:
        return None
    place, block = taken
    try:
        copy_in(array, block)
    except BaseException:  # for example Ctrl-C
        producer.take_back(place[0])
        raise
    return place


def _lent_block(producer: Producer, pool: Pool, nbytes: int) -> tuple[Reference, Block] | None:
    """Lends a fresh block of so many bytes with the record that is published next. None if the lane has no free row."""
    if again := producer.lend_again(nbytes):
        block = cast(Block, again[1])  # only own blocks are lent again
        return (again[0], block.slab.identifier, block.index, block.generation), block
    if producer.can_lend():
        block = pool.take(nbytes)
        return lend(producer, block), block
    return None


def publish_batch(data: bytes, count: int, pool: Pool, producer: Producer, head: tuple[int, ...]) -> bool:
    """Publishes `count` items of many streams in one record, as `packed_batch` has packed them; False, with nothing
    done, if the lane has no room for it.

    `head` holds the header's numbers from `source` to `cause_sequence`. Raises OutOfMemory when the pool is exhausted.
    """
    taken = _lent_block(producer, pool, len(data)) if producer.free_records() else None
    if taken is None:
        return False
    place, block = taken
    try:
        block.bytes()[: len(data)] = data
        write_record(
            producer.segment.bytes, producer.slot(), Kind.BATCH, _IN_BLOCK, *head, len(data), *place, count, b""
        )
        producer.publish()
    except BaseException:  # for example Ctrl-C
        producer.take_back(place[0])
        raise
    return True
