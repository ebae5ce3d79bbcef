"""What a message may carry, and how it is packed: one set of rules and error texts for records and for frames."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray

from ...shm.errors import MessageError
from ...shm.tensor import check_array, is_extension

DEEPEST = 64
# The code of msgpack's extension type for a tensor, in records as in frames.
TENSOR_CODE = 1
# From this length on, bytes could make msgpack reserve much more than they fill: each level of nesting may announce as
# many elements as there are bytes.
_SKIP_FROM_NBYTES = 1024
_LEAVES = frozenset((type(None), bool, int, float, str, bytes, bytearray, np.ndarray))
# Subclasses of ndarray that hold nothing beside their values. Any other subclass may hold more: a unit, or a mask.
_PLAIN_ARRAYS = (np.memmap, np.matrix, np.recarray)
# A scalar of numpy of one of these kinds equals the result of its `item`; so does a scalar of an extension.
_SCALAR_KINDS = "biufUS"
_SENDABLE = "None, bool, int (64 bits), float, str, bytes, lists, dicts with str keys, dataclasses and ndarrays"
# A dataclass that derives from one of these holds more than its fields.
_BASES = (str, int, float, bytes, bytearray, dict, list, tuple, np.ndarray, np.generic)
_LONGEST_KEY = 64

# Where a value lies: the path of its container (None: the value is the message), and its key, number or name there.
Path = tuple["Path", object] | None


class _Name(str):
    """The name of a dataclass's field, so that a path can tell it from a key."""

    __slots__ = ()


def plain(value: Any) -> Any:
    """The value, made of the types that a packer knows: None, bool, int, float, str, bytes, bytearray, contiguous
    memoryview, list, tuple, dict with str keys and ndarray, each of exactly this type. Plain parts are not copied.

    A subclass becomes the type that it derives from, a scalar of numpy one of Python, a dataclass a dict of its fields.
    Raises MessageError for anything else, with the path to it. `packed` checks whether each plain part can be packed.
    """
    return value if type(value) in _LEAVES else _walked(value, None, 0)


def plain_fields(message: dict[str, Any]) -> dict[str, Any]:
    """`plain` for the fields of a message by name, of which each may be as deep as a value."""
    return _dict(message, None, -1)


def packed(value: Any, place: Callable[[NDArray[Any]], msgpack.ExtType]) -> bytes:
    """A plain value as msgpack; `place` makes extensions of its arrays. Raises MessageError for what cannot be packed,
    with the path to it.
    """

    def place_array(obj: Any) -> msgpack.ExtType:
        if type(obj) is not np.ndarray:  # an int that is too large
            raise OverflowError
        return place(obj)

    try:
        return msgpack.packb(value, default=place_array)  # type: ignore[no-any-return]
    except (TypeError, ValueError, OverflowError, BufferError) as error:
        found = _culprit(value, None)
        if found is None and isinstance(error, MessageError):
            raise
        raise MessageError(found or f"the message cannot be packed: {error}") from None


def unpacked(data: bytes | memoryview, place: Callable[[int, bytes], Any], *, is_foreign: bool = False) -> Any:
    """The inverse of `packed`; `place` makes arrays of extensions. Raises MessageError for bytes that are no value.

    Bytes from another machine (`is_foreign`) make msgpack reserve no more memory than they fill.
    """
    try:
        if is_foreign and len(data) > _SKIP_FROM_NBYTES:
            _check_announced(data)
        return msgpack.unpackb(data, ext_hook=place, timestamp=1)  # a float: no message holds dates
    except MessageError:
        raise
    except Exception as error:  # msgpack's own errors have no common base
        raise MessageError(f"a message cannot be unpacked: {error}") from None


def _check_announced(data: bytes | memoryview) -> None:
    """Walks over the bytes and builds nothing, so that a container that announces more than came reserves nothing."""
    unpacker = msgpack.Unpacker(read_size=len(data), max_buffer_size=len(data))
    unpacker.feed(data)
    unpacker.skip()


def unknown_code(code: int) -> MessageError:
    """What is wrong with an extension that is no tensor."""
    return MessageError(f"a message holds an extension of unknown code {code}")


# -- what holds others -----------------------------------------------------------------------------------------------


def _walked(value: Any, path: Path, depth: int) -> Any:
    return _WALKS.get(type(value), _converted)(value, path, depth)


def _dict(value: dict[Any, Any], path: Path, depth: int) -> dict[str, Any]:
    if depth >= DEEPEST:
        raise _too_deep(path)
    leaves, made = _LEAVES, value
    for key, each in value.items():
        if type(key) is not str:
            raise MessageError(f"{_words(path)} has the key {_short(key)} of type {_kind(key)}; keys must be str")
        if type(each) not in leaves:
            new = _walked(each, (path, key), depth + 1)
            if new is not each:
                made = dict(value) if made is value else made
                made[key] = new
    return made


def _list(value: list[Any] | tuple[Any, ...], path: Path, depth: int) -> list[Any] | tuple[Any, ...]:
    if depth >= DEEPEST:
        raise _too_deep(path)
    leaves = _LEAVES
    if leaves.issuperset(map(type, value)):
        return value
    made: list[Any] | None = None
    for number, each in enumerate(value):
        if type(each) not in leaves:
            new = _walked(each, (path, number), depth + 1)
            if new is not each:
                made = list(value) if made is None else made
                made[number] = new
    return value if made is None else made


def _too_deep(path: Path) -> MessageError:
    return MessageError(f"{_words(path)} is nested deeper than {DEEPEST} levels")


# -- what is no plain type -------------------------------------------------------------------------------------------


def _converted(value: Any, path: Path, depth: int) -> Any:
    """Decides by the type itself, because `isinstance` trusts the class that an object claims to have."""
    kind = type(value)
    if issubclass(kind, (msgpack.ExtType, msgpack.Timestamp)):
        raise _refused(value, path)
    try:
        if is_dataclass(kind):
            return _of_dataclass(value, path, depth)
        if issubclass(kind, np.ndarray):
            return _bare(value, path)
        if issubclass(kind, np.generic):
            return _scalar(value, path)
        if issubclass(kind, (bytearray, bytes, memoryview)):
            return _bytes(value)
        for base, exact in ((str, str.__str__), (int, int.__int__), (float, float.__float__)):
            if issubclass(kind, base):
                return exact(value)  # the subclass may override its own conversion
        if issubclass(kind, dict):
            return _dict(dict(value.items()), path, depth)
        if issubclass(kind, (list, tuple)):
            return _list(list(value), path, depth)
        raise _refused(value, path)
    except MessageError:
        raise
    except Exception as error:  # raised by code of the user, so its text may be anything
        text = f"{_words(path)} is a {kind.__name__} that cannot be read: it raised {type(error).__name__}"
        raise MessageError(text) from error


def _bare(array: NDArray[Any], path: Path) -> NDArray[Any]:
    kind = type(array)
    if issubclass(kind, np.ma.MaskedArray):
        remedy = "send .filled(), or data and mask"
        raise MessageError(f"{_words(path)} is a {kind.__name__}: a masked array would lose its mask; {remedy}")
    if kind not in _PLAIN_ARRAYS:
        raise MessageError(
            f"{_words(path)} is a {kind.__name__}, a subclass of ndarray that may hold more than its values; send "
            "np.asarray of it, and the rest beside it"
        )
    return np.ndarray.view(array, np.ndarray)


def _scalar(value: np.generic, path: Path) -> Any:
    if value.dtype.kind in _SCALAR_KINDS or is_extension(value.dtype):
        item = value.item()
        if type(item) in _LEAVES:
            return item
    raise _refused(value, path)


def _bytes(value: bytes | bytearray | memoryview) -> bytes | memoryview:
    view = memoryview(value)
    return view if view.c_contiguous else view.tobytes()


def _of_dataclass(value: Any, path: Path, depth: int) -> dict[str, Any]:
    if depth >= DEEPEST:
        raise _too_deep(path)
    base = next((each for each in _BASES if issubclass(type(value), each)), None)
    if base is not None:
        both = f"{_kind(value)}, a dataclass that is also a {base.__name__}"
        raise MessageError(f"{_words(path)} is a {both}; send its fields and what it is beside them")
    made: dict[str, Any] = {}
    for each in fields(value):
        name = _Name(each.name)
        try:
            item = getattr(value, each.name)
        except AttributeError:
            raise MessageError(f"{_words((path, name))} is not set") from None
        made[name] = item if type(item) in _LEAVES else _walked(item, (path, name), depth + 1)
    return made


def _refused(value: Any, path: Path) -> MessageError:
    kind = type(value)
    remedy = ""
    if issubclass(kind, np.generic) and value.dtype.names is None:
        remedy = "; send it as an array, np.asarray of it"
    elif hasattr(kind, "__dlpack__"):
        remedy = "; send it as an array, np.from_dlpack of it"
    elif hasattr(kind, "__array__") and not issubclass(kind, np.generic):
        remedy = "; send it as an array, np.asarray of it"
    return MessageError(f"{_words(path)} is a {kind.__name__}; a message carries {_SENDABLE}{remedy}")


_Walk = Callable[[Any, Path, int], Any]
_WALKS: dict[type, _Walk] = {dict: _dict, list: _list, tuple: _list}


# -- what cannot be packed -------------------------------------------------------------------------------------------


def _culprit(value: Any, path: Path) -> str | None:
    """Names the first array, int or text in a plain value that cannot be packed; None where there is none."""
    kind = type(value)
    if kind is dict:
        for key, each in value.items():
            if _is_broken(key):
                return f"{_words(path)} has the key {_short(key)}, a str with a lone surrogate; UTF-8 has none"
            if found := _culprit(each, (path, key)):
                return found
        return None
    if kind is list or kind is tuple:
        found_each = (_culprit(each, (path, number)) for number, each in enumerate(value))
        return next(filter(None, found_each), None)
    if kind is int and not -(1 << 63) <= value < 1 << 64:
        return f"{_words(path)} is an int of {value.bit_length() + (value < 0)} bits; 64 fit"
    if kind is str and _is_broken(value):
        return f"{_words(path)} is a str with a lone surrogate, which UTF-8 does not have; send it as bytes"
    return _wrong_array(value, path) if kind is np.ndarray else None


def _wrong_array(array: NDArray[Any], path: Path) -> str | None:
    try:
        check_array(array)
    except MessageError as error:
        return f"{_words(path)}: {error}"
    return None


def _is_broken(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


# -- words -----------------------------------------------------------------------------------------------------------


def _words(path: Path) -> str:
    """`message['a'][1].b`"""
    steps = []
    while path is not None:
        path, step = path
        steps.append(f".{step}" if type(step) is _Name else f"[{_short(step)}]")
    return "message" + "".join(reversed(steps))


def _short(key: object) -> str:
    """The repr of a key, cut if it is long."""
    try:
        text = repr(key)
    except Exception:  # raised by code of the user
        return "?"
    return text if len(text) <= _LONGEST_KEY else text[:_LONGEST_KEY] + "..."


def _kind(value: object) -> str:
    return type(value).__name__
