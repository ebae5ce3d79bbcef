"""Dtype, shape and place of a tensor, as bytes in a record."""

from __future__ import annotations

import re
import struct
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import MessageError

# The form of the names that `dtype_name` makes. Others may crash numpy by a division by zero: <M8[ns/0], <m8[0s].
_NAME = re.compile(rb"[a-z][a-z0-9_]{1,23}|[<>|=]?[biufcSUVmM][0-9]{0,10}(\[([1-9][0-9]{0,9})?[a-zA-Z]{1,2}\])?")
_FIXED = struct.Struct("<BBBxI")  # length of the dtype's name, dimensions, flags, bytes that lie inline
_INLINE, _STRIDED = 1, 2
_LONGEST_TEXT = 100  # of a dtype in the text of an error
MOST_DIMENSIONS = 32  # the limit of numpy 1; numpy 2 allows 64, which no tensor needs
# The key of a dtype in a cache: see `token_of`.
Token = np.dtype[Any] | str


class Description:
    """A tensor as it stands in metadata: `at` is its offset in the block, unless `inline_nbytes` bytes of it follow the
    description itself. It touches the bytes from `low` to `high` (exclusive) of the block.
    """

    __slots__ = ("at", "dtype", "high", "inline_nbytes", "low", "shape", "strides")

    def __init__(
        self,
        dtype: np.dtype[Any],
        shape: tuple[int, ...],
        strides: tuple[int, ...] | None,
        at: int,
        inline_nbytes: int | None,
    ) -> None:
        self.dtype = dtype
        self.shape = shape
        self.strides = strides
        self.at = at
        self.inline_nbytes = inline_nbytes
        low, high = extent(shape, strides, dtype.itemsize)
        self.low, self.high = at + low, at + high


@lru_cache(maxsize=1024)
def describe(
    token: Token, shape: tuple[int, ...], strides: tuple[int, ...] | None, at: int, inline_nbytes: int | None
) -> bytes:
    """The description, as bytes, of a tensor that lies `at` bytes into its block, or (`inline_nbytes`) right behind.

    `token` stands for its dtype; `strides` are None for one that is contiguous. Raises MessageError for what cannot be
    sent.
    """
    name, dimensions = _name(token), len(shape)
    if dimensions > MOST_DIMENSIONS:
        raise MessageError(f"an array has {dimensions} dimensions; at most {MOST_DIMENSIONS} are sent")
    flags = _INLINE * (inline_nbytes is not None) | _STRIDED * (strides is not None)
    numbers = (at, *shape, *(strides or ()))
    return (
        _FIXED.pack(len(name), dimensions, flags, inline_nbytes or 0)
        + name
        + struct.pack(f"<{len(numbers)}q", *numbers)
    )


@lru_cache(maxsize=1024)
def description_of(packed: bytes) -> Description:
    """The inverse of `describe`. Raises MessageError for bytes that it cannot have made."""
    try:
        name_nbytes, dimensions, flags, inline_nbytes = _FIXED.unpack_from(packed)
        dtype = dtype_named(packed[_FIXED.size : _FIXED.size + name_nbytes])
        count = 1 + dimensions * (2 if flags & _STRIDED else 1)
        at, *numbers = struct.unpack(f"<{count}q", packed[_FIXED.size + name_nbytes :])
    except MessageError:
        raise
    except (struct.error, TypeError, ValueError) as error:
        raise MessageError(f"the description of a tensor is damaged: {error}") from None
    shape = tuple(numbers[:dimensions])
    strides = tuple(numbers[dimensions:]) if flags & _STRIDED else None
    if dimensions > MOST_DIMENSIONS or any(length < 0 for length in shape) or at < 0:
        raise MessageError(f"the description of a tensor is damaged: shape {shape} at {at}")
    found = Description(dtype, shape, strides, at, inline_nbytes if flags & _INLINE else None)
    if flags & _INLINE and (strides is not None or found.high - found.low != inline_nbytes):
        raise MessageError(f"the description of a tensor is damaged: shape {shape} in {inline_nbytes} bytes")
    return found


def pack_tensor(array: NDArray[Any], at: int, *, inline: bool = False) -> bytes:
    """The description of an array that lies `at` bytes into its block, or (`inline`) with its bytes behind it."""
    token = token_of(array.dtype)
    if inline:
        data = array.tobytes()
        return describe(token, array.shape, None, 0, len(data)) + data
    return describe(token, array.shape, None if array.flags.c_contiguous else array.strides, at, None)


def unpack_tensor(packed: bytes) -> tuple[Description, bytes]:
    """The inverse of `pack_tensor`: the description, and what follows it. Raises MessageError for damaged bytes."""
    if len(packed) < _FIXED.size:
        raise MessageError(f"the description of a tensor is damaged: it has {len(packed)} bytes")
    name_nbytes, dimensions, flags, _ = _FIXED.unpack_from(packed)
    end = _FIXED.size + name_nbytes + 8 * (1 + dimensions * (2 if flags & _STRIDED else 1))
    found, data = description_of(packed[:end]), packed[end:]
    if len(data) != (found.inline_nbytes or 0):
        raise MessageError(f"a tensor of {found.inline_nbytes or 0} bytes came with {len(data)}")
    return found, data


def inline_array(description: Description, data: bytes) -> NDArray[Any]:
    """A read-only array of the bytes that came with a description. Raises MessageError for a shape that cannot be."""
    try:
        return np.ndarray(description.shape, description.dtype, data)
    except (ValueError, TypeError) as error:
        raise MessageError(f"a tensor of shape {description.shape} cannot be: {error}") from None


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


def check_array(array: NDArray[Any]) -> None:
    """Raises MessageError for an array that cannot be sent, in a record or in a frame."""
    describe(token_of(array.dtype), array.shape, None, 0, None)


def readable_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype itself, if an array of it can be sent. Raises MessageError for objects, structures and the like."""
    if dtype.num < 0:
        raise MessageError(
            f"dtype {_cut(dtype)} is that of another package and is not sent; convert it, .astype(float)"
        )
    if dtype.hasobject:
        raise MessageError(
            f"an array of dtype {dtype} holds Python objects, which are never sent; "
            "convert it, e.g. .astype(str) or .astype(float)"
        )
    if dtype.names is not None or dtype.subdtype is not None:
        raise MessageError(f"structured dtype {_cut(dtype)} is not sent; send one array a field")
    if not dtype.itemsize:
        raise MessageError(f"dtype {dtype.str} has elements of no bytes, which are not sent; give it a length")
    if dtype.kind in "mM" and np.datetime_data(dtype)[1] < 1:
        raise MessageError(f"dtype {dtype.name} counts in steps of 0, of which numpy itself dies; give it another unit")
    if is_extension(dtype) and not dtype.isnative and dtype.itemsize > 1:
        raise MessageError(
            f"dtype {dtype.name} in foreign byte order is not sent; convert it, .astype(dtype.newbyteorder('='))"
        )
    return dtype


def _cut(dtype: np.dtype[Any]) -> str:
    text = str(dtype)
    return text if len(text) <= _LONGEST_TEXT else text[:_LONGEST_TEXT] + "..."


def token_of(dtype: np.dtype[Any]) -> Token:
    """The key of a dtype in a cache: the dtype itself, if numpy or an extension has built it in, else its text.

    All dtypes of time have the same hash. numpy then compares them, crashes on some and takes others for equal. Raises
    MessageError for kinds of dtypes of which several have the same text.
    """
    if dtype.isbuiltin:
        return dtype
    if dtype.hasobject or dtype.names is not None or dtype.num < 0:
        readable_dtype(dtype)
    return dtype.str


def dtype_name(dtype: np.dtype[Any]) -> bytes:
    """A dtype's name in a description: `float32`, `bfloat16`, `<M8[ns]`. Raises MessageError for what has none."""
    return _name(token_of(dtype))


@lru_cache(maxsize=256)
def _name(token: Token) -> bytes:
    dtype = readable_dtype(np.dtype(token))
    name = _spelt(dtype)
    dtype_named(name)  # the receiver must know the dtype, too
    return name


def _spelt(dtype: np.dtype[Any]) -> bytes:
    """The one name of a dtype that records and frames may have."""
    named = is_extension(dtype) or (dtype.isnative and dtype.kind in "biufc")
    return (dtype.name if named else dtype.str).encode()


@lru_cache(maxsize=256)
def dtype_named(name: bytes) -> np.dtype[Any]:
    """The inverse of `dtype_name`. bfloat16, float8 and the like need the package ml_dtypes.

    Raises MessageError for every other text, above all for one that would make pointers out of the bytes of a peer.
    """
    if not _NAME.fullmatch(name):
        raise MessageError(f"a tensor has the dtype {name[:64].decode(errors='replace')!r}, which is none")
    text = name.decode()
    try:
        dtype = np.dtype(text)
    except (TypeError, ValueError, SyntaxError):
        dtype = _extension_dtype(text)
    if _spelt(readable_dtype(dtype)) != name:
        raise MessageError(f"a tensor has the dtype {text!r}, which numpy calls {_spelt(dtype).decode()!r}")
    return dtype


def is_extension(dtype: np.dtype[Any]) -> bool:
    """Whether another package registered the dtype with numpy, so that its `str` does not name it."""
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
