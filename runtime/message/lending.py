"""Blocks of shared memory that the arrays of a message lie in: found and lent by the sender, opened by the receiver."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...shm.block import Block, LoanBase
from ...shm.errors import MessageError
from ...shm.lane import OWN, Source
from ...shm.lease import Lease, LeasedArray
from ...shm.producer import Producer
from ...shm.tensor import Description
from .header import Flag, Header

# What a block is lent from: the sender's own block, or the lease that the sender received it under.
Holder = Block | Lease
# Row of the lane, slab, block, generation: how a record refers to a block.
Reference = tuple[int, int, int, int]
# The reference of a record that lends no block.
NOWHERE: Reference = (0, 0, 0, 0)
_BLOCK = Flag.BLOCK
_as_tuple = tuple.__new__


def holder_of(array: NDArray[Any]) -> Holder | None:
    """The block of a loan, or the lease of a received array; also for a view of one. None for any other array."""
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
    base: Any = array.base
    # numpy is slow to tell an address. What is passed on is mostly all of what was received: it begins where that does.
    if (
        type(base) is LeasedArray
        and base.lease is holder
        and array.shape == base.shape
        and array.strides == base.strides
        and array.dtype.itemsize == base.dtype.itemsize  # not the imaginary parts, or one field of each element
    ):
        return base.at
    return int(array.__array_interface__["data"][0]) - holder.address()


def copy_in(array: NDArray[Any], block: Block, at: int = 0) -> None:
    """Copies an array into a block, contiguous, `at` bytes behind the block's beginning."""
    np.ndarray(array.shape, array.dtype, block.slab.mapping, block.start + at)[...] = array


def freeze(array: NDArray[Any], block: Block) -> None:
    """Makes a published loan read-only for its owner: the array, and each array that it is a view of."""
    if block.pool.ledger is not None:
        block.pool.ledger.published(block, array)
    each: Any = array
    while isinstance(each, np.ndarray):
        each.flags.writeable = False
        each = each.base


def lend(producer: Producer, holder: Holder) -> Reference:
    """Lends a block with the record that is published next. The lane must have a free row (`can_lend`)."""
    slab = holder.slab.identifier
    if isinstance(holder, Block):
        holder.lends += 1
        return producer.lend(slab, holder.index, holder), slab, holder.index, holder.generation
    return producer.lend(slab, holder.block, holder, holder.source), slab, holder.block, holder.generation


def source_of(header: Header, lane: int, sequence: int) -> Source:
    """Names the lease that a record gives its reader; OWN if the record lends no block."""
    return _as_tuple(Source, (lane, header.row, sequence + 1)) if header.flags & _BLOCK else OWN


def array_of(tensor: Description, lease: Lease | None) -> NDArray[Any]:
    """The described array in the block of a lease, read-only. Raises MessageError if the array does not lie there."""
    if lease is None:
        raise MessageError("a message describes a tensor in a block, but refers to none")
    if tensor.low < 0 or tensor.high > lease.slab.block_nbytes:
        raise MessageError(f"a tensor of shape {tensor.shape} at {tensor.at} does not lie in its block")
    try:
        return lease.array(tensor.at, tensor.shape, tensor.dtype, tensor.strides)
    except (ValueError, TypeError) as error:
        raise MessageError(f"a tensor of shape {tensor.shape} cannot be: {error}") from None
