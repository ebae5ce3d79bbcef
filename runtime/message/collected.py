"""Values kept while they leave, packed, up to a bound in bytes: for reports of requests that were handed on."""

from __future__ import annotations

from typing import Any

import msgpack
from numpy.typing import NDArray

from ...shm.tensor import inline_array, pack_tensor, unpack_tensor
from .values import TENSOR_CODE, packed, plain, unknown_code, unpacked


class _TooMuch(Exception):
    """The bound is passed."""


class Collected:
    """Values as they leave, packed, their arrays too: what is sent may change, and its blocks are not to be held.

    Over `most_nbytes` all are dropped: `values` is None. One thread.
    """

    def __init__(self, most_nbytes: int) -> None:
        self.nbytes = 0
        self._most_nbytes = most_nbytes
        self._packed: list[bytes] | None = []

    def add(self, value: Any) -> None:
        """One more value, which a message can carry."""
        if self._packed is None:
            return
        try:
            each = packed(plain(value), self._place)
        except _TooMuch:
            self.drop()
            return
        self.nbytes += len(each)
        self._packed.append(each)
        if self.nbytes > self._most_nbytes:
            self.drop()

    def drop(self) -> None:
        """What was collected is not whole any more."""
        self._packed = None

    def values(self) -> list[Any] | None:
        """All of them, the oldest first; None where they were dropped."""
        return None if self._packed is None else [unpacked(each, _array_of) for each in self._packed]

    def _place(self, array: NDArray[Any]) -> msgpack.ExtType:
        if self.nbytes + array.nbytes > self._most_nbytes:
            raise _TooMuch
        return msgpack.ExtType(TENSOR_CODE, pack_tensor(array, 0, inline=True))


def _array_of(code: int, data: bytes) -> Any:
    if code != TENSOR_CODE:
        raise unknown_code(code)
    return inline_array(*unpack_tensor(data))
