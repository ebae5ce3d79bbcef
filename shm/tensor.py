"""Dtype, shape and place of a tensor, as bytes in a record."""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import MessageError

_FIXED = struct.Struct("<BBBxI")  # length of the dtype's name, dimensions, flags, bytes that lie inline
_INLINE, _STRIDED = 1, 2
MOST_DIMENSIONS = 32  # numpy 1's limit; numpy 2 allows 64, which no tensor needs


class Description:
    """A tensor as it stands in metadata: `at` is its offset in the block, unless its bytes follow inline."""

    __slots__ = ("at", "dtype", "inline", "shape", "strides")

    def __init__(
        self,
        dtype: np.dtype[Any],
        shape: tuple[int, ...],
        strides: tuple[int, ...] | None,
        at: int,
        inline: bytes | None,
    ) -> None:
        self.dtype = dtype
        self.shape = shape
        self.strides = strides
        self.at = at
        self.inline = inline


def pack_tensor(array: NDArray[Any], at: int, *, inline: bool = False) -> bytes:
    """The description of an array that lies `at` bytes into its block, or (`inline`) with its bytes behind it."""
    name = dtype_name(array.dtype)
    if array.ndim > MOST_DIMENSIONS:
        raise MessageError(f"an array has {array.ndim} dimensions; at most {MOST_DIMENSIONS} are sent")
    strided = not inline and not array.flags.c_contiguous
    flags = _INLINE * inline | _STRIDED * strided
    numbers = (at, *array.shape, *(array.strides if strided else ()))
    data = array.tobytes() if inline else b""
    return (
        _FIXED.pack(len(name), array.ndim, flags, len(data)) + name + struct.pack(f"<{len(numbers)}q", *numbers) + data
    )


def unpack_tensor(packed: bytes) -> Description:
    """The inverse of `pack_tensor`. Raises MessageError for bytes that it cannot have made."""
    try:
        name_nbytes, dimensions, flags, inline_nbytes = _FIXED.unpack_from(packed)
        dtype = dtype_named(packed[_FIXED.size : _FIXED.size + name_nbytes])
        start = _FIXED.size + name_nbytes
        count = 1 + dimensions * (2 if flags & _STRIDED else 1)
        at, *numbers = struct.unpack_from(f"<{count}q", packed, start)
    except MessageError:
        raise
    except (struct.error, TypeError, ValueError) as error:
        raise MessageError(f"the description of a tensor is damaged: {error}") from None
    shape = tuple(numbers[:dimensions])
    strides = tuple(numbers[dimensions:]) if flags & _STRIDED else None
    inline = packed[start + 8 * count :] if flags & _INLINE else None
    if dimensions > MOST_DIMENSIONS or any(length < 0 for length in shape) or at < 0:
        raise MessageError(f"the description of a tensor is damaged: shape {shape} at {at}")
    if inline is not None and len(inline) != inline_nbytes:
        raise MessageError(f"a tensor of {inline_nbytes} bytes came with {len(inline)}")
    return Description(dtype, shape, strides, at, inline)


def extent(shape: tuple[int, ...], strides: tuple[int, ...] | None, itemsize: int) -> tuple[int, int]:
    """The lowest and the highest byte (exclusive) that an array touches, relative to its first element."""
    if 0 in shape:
        return 0, 0
    if strides is None:
        nbytes = itemsize
        for length in shape:
            nbytes *= length
        return 0, nbytes
    reach = [(length - 1) * stride for length, stride in zip(shape, strides, strict=True)]
    return sum(each for each in reach if each < 0), sum(each for each in reach if each > 0) + itemsize


def readable_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype itself, if an array of it can be sent. Raises MessageError for objects and structures."""
    if dtype.hasobject:
        raise MessageError(
            f"an array of dtype {dtype} holds Python objects, which are never sent; "
            "convert it, e.g. .astype(str) or .astype(float)"
        )
    if dtype.names is not None or dtype.subdtype is not None:
        raise MessageError(f"structured dtype {dtype} is not sent; send one array a field")
    return dtype


@lru_cache(maxsize=256)
def dtype_name(dtype: np.dtype[Any]) -> bytes:
    """A dtype's name in a description: `float32`, `bfloat16`, `<M8[ns]`. Raises MessageError for what has none."""
    readable_dtype(dtype)
    named = is_extension(dtype) or (dtype.isnative and dtype.kind in "biufc")
    return (dtype.name if named else dtype.str).encode()


@lru_cache(maxsize=256)
def dtype_named(name: bytes) -> np.dtype[Any]:
    """The inverse of `dtype_name`. bfloat16, float8 and the like need the package ml_dtypes.

    Raises MessageError for every other text, above all for one that would make pointers out of the bytes of a peer.
    """
    text = name.decode()
    try:
        dtype = np.dtype(text)
    except (TypeError, ValueError, SyntaxError):
        dtype = _extension_dtype(text)
    return readable_dtype(dtype)


def is_extension(dtype: np.dtype[Any]) -> bool:
    """Whether another package registered it with numpy, so that its `str` does not name it."""
    return dtype.isbuiltin == 2


def _extension_dtype(text: str) -> np.dtype[Any]:
    try:
        import ml_dtypes
    except ImportError:
        raise MessageError(f"dtype {text} needs the package ml_dtypes: pip install ml_dtypes") from None
    found = getattr(ml_dtypes, text, None)
    if not isinstance(found, type) or not is_extension(np.dtype(found)):
        raise MessageError(f"neither numpy nor ml_dtypes knows the dtype {text!r}")
    return np.dtype(found)


def interface_of(
    address: int,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    *,
    strides: tuple[int, ...] | None = None,
    writable: bool,
) -> dict[str, Any]:
    """An array interface, version 3. An extension dtype appears as bytes; the caller views it as what it is."""
    typestr = f"|V{dtype.itemsize}" if is_extension(dtype) else dtype.str
    return {"data": (address, not writable), "shape": shape, "typestr": typestr, "strides": strides, "version": 3}


def base_of(array: NDArray[Any]) -> object:
    """What an array's memory belongs to in the end: the first base that is no array."""
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    return base
