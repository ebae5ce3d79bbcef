"""The owner's side of a block: writable arrays, as long as any of which lives the block stays out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .tensor import base_of

if TYPE_CHECKING:
    from .block import Block


class LoanBase:
    """The base of a loaned array: while it or any view of it lives, the block stays out. Dies in any thread."""

    __slots__ = ("__array_interface__", "block")

    def __init__(self, block: Block, interface: dict[str, Any]) -> None:
        self.block = block
        self.__array_interface__ = interface

    def __del__(self) -> None:
        self.block.pool.unviewed.append(self.block)


def loaned(base: LoanBase, dtype: np.dtype[Any]) -> NDArray[Any]:
    """The array itself; `dtype` may be one that an array interface cannot name."""
    array = np.asarray(base)
    return array if array.dtype == dtype else array.view(dtype)


def loaned_block(array: NDArray[Any]) -> Block | None:
    """The block that an array lies in, if it is a loan or a view of one."""
    base = base_of(array)
    return base.block if isinstance(base, LoanBase) else None
