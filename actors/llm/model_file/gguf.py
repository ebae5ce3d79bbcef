"""Reads GGUF files (versions 2 and 3): metadata at once, tensors where they lie in the mapped file.

The layout is that of the GGUF specification (ggml, docs/gguf.md): a header, key-value pairs, a table of tensors,
padding, and the tensors' bytes. Nothing in a file is trusted: every count and length is held against the bytes that are
left before anything is made of it.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from ....runtime.errors import SlabwireError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MOST_DIMENSIONS = 4  # GGML_MAX_DIMS
DEFAULT_ALIGNMENT = 32

_STRING, _ARRAY = 8, 9
# Value types of metadata by number, other than strings and arrays.
_NUMBERS: Mapping[int, np.dtype[Any]] = {
    0: np.dtype("u1"),
    1: np.dtype("i1"),
    2: np.dtype("<u2"),
    3: np.dtype("<i2"),
    4: np.dtype("<u4"),
    5: np.dtype("<i4"),
    6: np.dtype("<f4"),
    7: np.dtype("?"),
    10: np.dtype("<u8"),
    11: np.dtype("<i8"),
    12: np.dtype("<f8"),
}


@dataclass(frozen=True)
class GgufKind:
    """How the elements of a tensor are stored: `nbytes` bytes for each `elements` neighbours of a row."""

    name: str
    elements: int
    nbytes: int


# By number, as ggml.h counts them. Of the many that exist: those in files that people share.
KINDS: Mapping[int, GgufKind] = {
    0: GgufKind("F32", 1, 4),
    1: GgufKind("F16", 1, 2),
    2: GgufKind("Q4_0", 32, 18),
    3: GgufKind("Q4_1", 32, 20),
    6: GgufKind("Q5_0", 32, 22),
    7: GgufKind("Q5_1", 32, 24),
    8: GgufKind("Q8_0", 32, 34),
    10: GgufKind("Q2_K", 256, 84),
    11: GgufKind("Q3_K", 256, 110),
    12: GgufKind("Q4_K", 256, 144),
    13: GgufKind("Q5_K", 256, 176),
    14: GgufKind("Q6_K", 256, 210),
    30: GgufKind("BF16", 1, 2),
}


class ModelFileError(SlabwireError):
    """A model file that is missing, damaged, or of a kind that cannot be used; also one that cannot be cached."""

    code = "model_file"


@dataclass(frozen=True)
class GgufTensor:
    """One tensor of a file.

    `shape` counts like numpy's, the axis that lies together last: a weight is [outputs, inputs]. `kind` is the name of
    its storage, such as "Q4_1". `data` is a read-only view of the mapped file: float32 of `shape` for "F32", else uint8
    [*shape[:-1], bytes of a row].
    """

    name: str
    shape: tuple[int, ...]
    kind: str
    data: NDArray[Any]


class Gguf:
    """An open GGUF file; a context manager.

    `metadata` holds the key-value pairs: numbers, strings, bools, arrays of strings as list[str], other arrays as
    ndarrays. Tensors are views of the mapping, which goes when the file is closed and no view is left.
    Raises `ModelFileError` for a file that cannot be read, is cut short, or is no GGUF file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        cursor = _Cursor(self.path, _map(self.path))
        tensors, pairs = _header(cursor)
        metadata = _pairs(cursor, pairs)
        self.metadata: Mapping[str, Any] = MappingProxyType(metadata)
        self.tensors: Mapping[str, GgufTensor] = MappingProxyType(_tensors(cursor, tensors, metadata))

    def __enter__(self) -> Gguf:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Forgets the tensors, and with them the mapping. Views that somebody still holds stay readable and keep it."""
        self.tensors = MappingProxyType({})


class _Cursor:
    """A place in the mapped file that moves on by what is read, and never past the end."""

    def __init__(self, path: Path, mapping: mmap.mmap) -> None:
        self.path = path
        self.mapping = mapping
        self.end = len(mapping)
        self.at = 0

    def fail(self, cause: str) -> NoReturn:
        raise ModelFileError(f"model file {self.path}: {cause}; fetch it again, or give another GGUF file")

    def skip(self, nbytes: int, what: str) -> int:
        """Where the next `nbytes` bytes begin."""
        start = self.at
        if nbytes > self.end - start:
            self.fail(f"it ends at byte {self.end}, in the middle of {what}")
        self.at = start + nbytes
        return start

    def number(self, layout: str, what: str) -> int:
        """One unsigned number, "<I" or "<Q"."""
        value: int = struct.unpack_from(layout, self.mapping, self.skip(struct.calcsize(layout), what))[0]
        return value

    def text(self, what: str) -> str:
        nbytes = self.number("<Q", what)
        start = self.skip(nbytes, what)
        return self.decode(start, start + nbytes, what)

    def decode(self, start: int, end: int, what: str) -> str:
        try:
            return self.mapping[start:end].decode()
        except UnicodeDecodeError:
            self.fail(f"{what} is not UTF-8")


def _map(path: Path) -> mmap.mmap:
    try:
        with open(path, "rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise ModelFileError(f"model file {path} cannot be read: {error.strerror or error}; check `path`") from error
    except ValueError:
        raise ModelFileError(f"model file {path} is empty; fetch it again") from None


def _header(cursor: _Cursor) -> tuple[int, int]:
    """How many tensors and key-value pairs the file says that it has."""
    start = cursor.skip(len(MAGIC), "its header")
    magic = cursor.mapping[start : cursor.at]
    if magic != MAGIC:
        cursor.fail(f"it begins with {magic!r} and not with {MAGIC!r}, so it is no GGUF file")
    version = cursor.number("<I", "its header")
    if version not in VERSIONS:
        cursor.fail(f"it is a GGUF file of version {version}, big-endian or of another time; versions 2 and 3 are read")
    return cursor.number("<Q", "its header"), cursor.number("<Q", "its header")


def _pairs(cursor: _Cursor, count: int) -> dict[str, Any]:
    pairs: dict[str, Any] = {}
    for index in range(count):
        key = cursor.text(f"the name of metadata {index} of {count}")
        if key in pairs:
            cursor.fail(f"metadata {key!r} stands in it twice")
        pairs[key] = _value(cursor, f"metadata {key!r}")
    return pairs


def _value(cursor: _Cursor, what: str) -> Any:
    kind = cursor.number("<I", what)
    if kind == _STRING:
        return cursor.text(what)
    if kind != _ARRAY:
        return _numbers(cursor, kind, 1, what)[0].item()
    kind = cursor.number("<I", what)
    count = cursor.number("<Q", what)
    return _texts(cursor, count, what) if kind == _STRING else _numbers(cursor, kind, count, what)


def _numbers(cursor: _Cursor, kind: int, count: int, what: str) -> NDArray[Any]:
    dtype = _NUMBERS.get(kind)
    if dtype is None:
        cursor.fail(f"{what} has type {kind}, which is not known here")
    start = cursor.skip(count * dtype.itemsize, what)
    # A copy: views of metadata would keep the whole file mapped.
    values = np.frombuffer(cursor.mapping[start : cursor.at], np.uint8 if dtype == np.bool_ else dtype)
    return values != 0 if dtype == np.bool_ else values


def _texts(cursor: _Cursor, count: int, what: str) -> list[str]:
    """A vocabulary has 50,000 of them, so this loop has no calls but the ones it needs."""
    if count > (cursor.end - cursor.at) // 8:
        cursor.fail(f"it ends at byte {cursor.end}, in the middle of {what}, {count} strings")
    texts = []
    mapping, end, at = cursor.mapping, cursor.end, cursor.at
    length_at = struct.Struct("<Q").unpack_from
    for _ in range(count):
        start = at + 8
        if start > end or (at := start + length_at(mapping, at)[0]) > end:
            cursor.fail(f"it ends at byte {end}, in the middle of {what}")
        texts.append(cursor.decode(start, at, what))
    cursor.at = at
    return texts


def _tensors(cursor: _Cursor, count: int, metadata: Mapping[str, Any]) -> dict[str, GgufTensor]:
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1 or alignment % 8:
        cursor.fail(f"its alignment is {alignment!r}; it must be a multiple of 8")
    places: dict[str, tuple[tuple[int, ...], GgufKind, int]] = {}
    for index in range(count):
        name = cursor.text(f"the name of tensor {index} of {count}")
        if name in places:
            cursor.fail(f"tensor {name!r} stands in it twice")
        places[name] = _place(cursor, name, alignment)
    base = -(-cursor.at // alignment) * alignment
    return {name: _view(cursor, name, shape, kind, base + at) for name, (shape, kind, at) in places.items()}


def _place(cursor: _Cursor, name: str, alignment: int) -> tuple[tuple[int, ...], GgufKind, int]:
    """One entry of the table of tensors: shape, kind, and offset from where the tensors' bytes begin."""
    what = f"the entry of tensor {name!r}"
    dimensions = cursor.number("<I", what)
    if not 1 <= dimensions <= MOST_DIMENSIONS:
        cursor.fail(f"tensor {name!r} has {dimensions} dimensions; 1 to {MOST_DIMENSIONS} are possible")
    shape = tuple(cursor.number("<Q", what) for _ in range(dimensions))[::-1]
    number = cursor.number("<I", what)
    kind = KINDS.get(number)
    if kind is None:
        cursor.fail(f"tensor {name!r} is stored as type {number}, which is not known here")
    offset = cursor.number("<Q", what)
    if 0 in shape or shape[-1] % kind.elements or offset % alignment:
        cursor.fail(f"tensor {name!r} cannot be {list(shape)} of {kind.name} at {offset}")
    return shape, kind, offset


def _view(cursor: _Cursor, name: str, shape: tuple[int, ...], kind: GgufKind, start: int) -> GgufTensor:
    row_nbytes = shape[-1] // kind.elements * kind.nbytes
    nbytes = prod(shape[:-1]) * row_nbytes
    if start + nbytes > cursor.end:
        cursor.fail(f"it ends at byte {cursor.end}, in the middle of tensor {name!r}")
    data = np.frombuffer(cursor.mapping, np.uint8, nbytes, start).reshape(*shape[:-1], row_nbytes)
    return GgufTensor(name, shape, kind.name, data.view("<f4") if kind.name == "F32" else data)
