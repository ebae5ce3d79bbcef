"""Values of every kind, and what becomes of each on its way."""

from __future__ import annotations

import array
import collections
import datetime
import decimal
import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import ml_dtypes
import msgpack
import numpy as np


@dataclass
class Holder:
    x: Any


@dataclass(frozen=True, slots=True)
class Frozen:
    n: int = 3
    inner: Any = None


@dataclass
class Late:
    """A field that nobody has set."""

    late: int = field(init=False)


@dataclass
class Derived:
    n: int
    twice: int = field(init=False)

    def __post_init__(self) -> None:
        self.twice = 2 * self.n


@dataclass
class Tagged(dict):  # type: ignore[type-arg]
    tag: str = ""


Level = enum.IntEnum("Level", {"HIGH": 7})
Shade = enum.Enum("Shade", "DARK")


class Colour(str, enum.Enum):  # noqa: UP042 - whose text is another than that which it is equal to
    RED = "red"


class Pair(NamedTuple):
    left: int
    right: Any


class Text(str): ...


class Number(int):
    def __int__(self) -> int:
        return 99


class Real(float): ...


class Raw(bytes): ...


class Unreadable(list):  # type: ignore[type-arg]
    def __iter__(self) -> Iterator[Any]:
        raise RuntimeError("\ud800")


class UnreadableDict(dict):  # type: ignore[type-arg]
    def items(self) -> Any:
        raise RuntimeError("no")


class Lies:
    """Says that it is a dict."""

    __class__ = dict  # type: ignore[assignment]

    def items(self) -> Any:
        return []


class Raises:
    def __array__(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("no array")

    def __len__(self) -> int:
        raise RuntimeError("no length")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no comparison")

    def __repr__(self) -> str:
        raise RuntimeError("no text")

    __hash__ = object.__hash__


class OfAnother:
    """As arrays of other libraries are."""

    def __dlpack__(self, **_: Any) -> Any:
        return None

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0


class Quantity(np.ndarray):
    """An array with a unit, which its values do not hold."""

    unit = "km"


class Refused(NamedTuple):
    """What a sender raises, behind the path to the value."""

    text: str


class Kind(NamedTuple):
    """A value, and what arrives: None for itself."""

    make: Callable[[], Any]
    arrives: Any = None
    at_any_depth: bool = True


def scalar(dtype: str, number: float) -> Any:
    return np.array(number, dtype)[()]


def itself(value: Any) -> Any:
    return value


def nested(levels: int) -> Any:
    value: Any = []
    for number in range(levels - 1):
        value = [value] if number % 2 else {"in": value}
    return value


def cyclic() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def released() -> memoryview:
    view = memoryview(b"abc")
    view.release()
    return view


def as_array(dtype: Any, elements: int = 3) -> Kind:
    """Elements of a dtype."""

    def make() -> Any:
        values = np.zeros(elements, dtype)
        values.view(np.uint8)[:] = np.arange(values.nbytes) % 2
        return values

    return Kind(make)


_EXTENSIONS = [
    name
    for name in dir(ml_dtypes)
    if isinstance(found := getattr(ml_dtypes, name), type) and issubclass(found, np.generic)
]
_NUMBERS = ["?", *"bBhHiIlLqQefdgFDG"]
_TIMES = ["M8", "m8", "M8[ns]", "M8[25s]", "m8[7D]", "M8[1000us]", "m8[Y]", ">M8[ms]", "m8[2147483647as]", "M8[W]"]
_DTYPES: dict[str, Any] = {
    **{each: each for each in (*_NUMBERS, *_TIMES, ">f4", ">i8", ">c16", "S5", "U5", ">U5", "V7")},
    **{each: getattr(ml_dtypes, each) for each in _EXTENSIONS},
}
_OBJECTS = Refused(": an array of dtype object holds Python objects, which are never sent")
_WITHOUT_BYTES = Refused(": dtype .* has elements of no bytes")


def grid() -> Any:
    return np.arange(600, dtype=np.int32).reshape(20, 30)


ARRAYS: dict[str, Kind] = {
    **{f"array of {name}": as_array(dtype) for name, dtype in _DTYPES.items()},
    **{f"array of more {name}": as_array(dtype, 600) for name, dtype in _DTYPES.items()},
    "array with NaT": Kind(lambda: np.array(["2020-01-01", "NaT"], "M8[D]")),
    "0-d": Kind(lambda: np.array(2.5)),
    "0-d time": Kind(lambda: np.array("2020-01-01", "M8[ns]")),
    "empty": Kind(lambda: np.empty((3, 0, 2), np.float32)),
    "texts": Kind(lambda: np.array(["ü", "", "three"])),
    "surrogates in an array": Kind(lambda: np.array(["\ud800"])),
    "transposed": Kind(lambda: grid().T),
    "negative strides": Kind(lambda: grid()[::-1, ::-3]),
    "broadcast": Kind(lambda: np.broadcast_to(np.float32(3), (50, 40))),
    "read-only": Kind(lambda: np.frombuffer(bytes(400), np.int16)),
    "unaligned": Kind(lambda: np.frombuffer(bytes(401), np.uint8)[1:].view(np.float64)),
    "32 axes": Kind(lambda: np.zeros((1,) * 31 + (200,))),
    "matrix": Kind(lambda: np.arange(6).reshape(2, 3).view(np.matrix), np.arange(6).reshape(2, 3)),
    "recarray": Kind(lambda: np.arange(50).view(np.recarray), np.arange(50)),
    "memmap": Kind(lambda: np.memmap("/proc/self/exe", np.uint8, "r", shape=(4,)), np.frombuffer(b"\x7fELF", np.uint8)),
    "array with a unit": Kind(lambda: np.arange(3.0).view(Quantity), Refused(" is a Quantity, a subclass of ndarray")),
    "masked": Kind(lambda: np.ma.masked_greater([1.0, 2.0, 99.0], 9), Refused(" is a MaskedArray: a masked array")),
    "masked constant": Kind(lambda: np.ma.masked, Refused(" is a MaskedConstant: a masked array would lose its mask")),
    "masked record": Kind(
        lambda: np.ma.zeros(2, [("a", "f4")])[0], Refused(" is a mvoid: a masked array would lose its mask")
    ),
    "objects": Kind(lambda: np.array([1, None], object), _OBJECTS),
    "no objects": Kind(lambda: np.empty(0, object), _OBJECTS),
    "structured": Kind(lambda: np.zeros(2, [("a", "f4"), ("b", "f4")]), Refused(": structured dtype .* is not sent")),
    "structured as large as void": Kind(lambda: np.zeros(2, [("a", "V7")]), Refused(": structured dtype .* is not")),
    "void of no bytes": Kind(lambda: np.zeros(3, "V0"), _WITHOUT_BYTES),
    "text of no bytes": Kind(lambda: np.zeros(3, [("a", "U0")])["a"], _WITHOUT_BYTES),
    "steps of 0": Kind(lambda: np.zeros(9, "m8[0us]"), Refused(r": dtype timedelta64\[0us\] counts in steps of 0")),
    "swapped bfloat16": Kind(
        lambda: np.zeros(2, np.dtype(ml_dtypes.bfloat16).newbyteorder(">")),
        Refused(": dtype bfloat16 in foreign byte order is not sent"),
    ),
}
if hasattr(np.dtypes, "StringDType"):  # numpy 2
    from numpy._core._multiarray_umath import _get_sfloat_dtype  # type: ignore[import-not-found]
    from numpy._core._rational_tests import rational  # type: ignore[import-not-found]

    ARRAYS["of another package"] = Kind(lambda: np.zeros(3, rational), Refused(": neither numpy nor ml_dtypes knows"))
    ARRAYS["of a new kind"] = Kind(
        lambda: np.arange(3.0).view(_get_sfloat_dtype()(2.0)), Refused(": dtype _ScaledFloat.* is that of another")
    )
    ARRAYS["33 axes"] = Kind(lambda: np.zeros((1,) * 33), Refused(": an array has 33 dimensions; at most 32"))
    _STRINGS = Refused(r": an array of dtype StringDType.* holds Python objects")
    ARRAYS["strings"] = Kind(lambda: np.array(["a"], np.dtypes.StringDType()), _STRINGS)
    ARRAYS["strings or nan"] = Kind(lambda: np.array(["a"], np.dtypes.StringDType(na_object=np.nan)), _STRINGS)


SCALARS: dict[str, Kind] = {
    "numpy bool": Kind(lambda: np.bool_(True), True),
    **{f"numpy {each}": Kind(partial(scalar, each, 5), 5) for each in "bBhHiIlLqQ"},
    **{f"numpy {each}": Kind(partial(scalar, each, 1.5), 1.5) for each in "efd"},
    "numpy str": Kind(lambda: np.str_("ü"), "ü"),
    "numpy bytes": Kind(lambda: np.bytes_(b"ab"), b"ab"),
    "numpy nan": Kind(lambda: np.float32("nan"), float("nan")),
    "largest uint64": Kind(lambda: np.uint64((1 << 64) - 1), (1 << 64) - 1),
    "bfloat16": Kind(lambda: ml_dtypes.bfloat16(1.5), 1.5),
    "int4": Kind(lambda: ml_dtypes.int4(-3), -3),
    **{
        f"scalar {text}": Kind(make, Refused(rf" is a {kind}; a message carries .*; send it as an array"))
        for text, kind, make in (
            ("ns", "datetime64", lambda: np.datetime64("2020-01-01T00:00:00.000000001")),
            ("days", "datetime64", lambda: np.datetime64("2020-01-01")),
            ("far", "datetime64", lambda: np.datetime64("20000-01-01")),
            ("NaT", "datetime64", lambda: np.datetime64("NaT")),
            ("5 ns", "timedelta64", lambda: np.timedelta64(5, "ns")),
            ("5 years", "timedelta64", lambda: np.timedelta64(5, "Y")),
            ("5 of no unit", "timedelta64", lambda: np.timedelta64(5)),
            ("no time", "timedelta64", lambda: np.timedelta64("NaT")),
            ("longdouble", "longdouble", lambda: np.longdouble(1) / 3),
            ("complex64", "complex64", lambda: np.complex64(1j)),
            ("complex128", "complex128", lambda: np.complex128(1j)),
            ("clongdouble", "clongdouble", lambda: np.clongdouble(1j)),
            ("void", "void", lambda: np.void(b"abc")),
        )
    },
    "structured scalar": Kind(lambda: np.zeros(1, [("a", "f4")])[0], Refused(" is a void; a message carries")),
    "record": Kind(lambda: np.rec.array([(1.0,)], [("a", "f4")])[0], Refused(" is a record; a message carries")),
}

_SURROGATE = Refused(" is a str with a lone surrogate, which UTF-8 does not have")
_TOO_DEEP = Refused(r"(\[(0|'in')\]){64} is nested deeper than 64 levels")
_CANNOT = "; a message carries None, bool, int"
PLAIN: dict[str, Kind] = {
    "None": Kind(lambda: None),
    **{f"{each!r}": Kind(partial(itself, each)) for each in (True, False, 0, -1, 2**63, 2**64 - 1, -(2**63))},
    **{f"float {each}": Kind(partial(float, each)) for each in ("0.1", "-0.0", "nan", "inf", "-inf", "5e-324")},
    "2**64": Kind(lambda: 2**64, Refused(" is an int of 65 bits; 64 fit")),
    "-2**63-1": Kind(lambda: -(2**63) - 1, Refused(" is an int of 65 bits; 64 fit")),
    "2**4000": Kind(lambda: 2**4000, Refused(" is an int of 4001 bits; 64 fit")),
    "text": Kind(lambda: "ü\0\U0001f600"),
    "long text": Kind(lambda: "ü" * 5000),
    "surrogate": Kind(lambda: "a\ud800", _SURROGATE),
    "long surrogate": Kind(lambda: "a" * 5000 + "\udfff", _SURROGATE),
    "bytes": Kind(lambda: b"\0\xff"),
    "bytearray": Kind(lambda: bytearray(b"\0\xff"), b"\0\xff"),
    "memoryview": Kind(lambda: memoryview(b"abc"), b"abc"),
    "strided memoryview": Kind(lambda: memoryview(b"abcdef")[::-2], b"fdb"),
    "memoryview of floats": Kind(lambda: np.arange(2.0).data, np.arange(2.0).tobytes()),
    "memoryview of two axes": Kind(lambda: memoryview(grid()), grid().tobytes()),
    "transposed memoryview": Kind(lambda: memoryview(grid().T), grid().T.tobytes()),
    "released memoryview": Kind(released, Refused(" is a memoryview that cannot be read: it raised ValueError")),
    "empties": Kind(lambda: ["", b"", [], {}, (), bytearray()], ["", b"", [], {}, [], b""]),
    "tuple": Kind(lambda: (1, (2, [])), [1, [2, []]]),
    "1000 ints": Kind(lambda: list(range(1000))),
    "dict": Kind(lambda: {"": 1, "ü\0": {"b": [None]}}),
    **{
        f"key {key!r}": Kind(
            partial(dict, [("a", 1), (key, 2)]),
            Refused(rf" has the key .* of type {type(key).__name__}; keys must be str"),
        )
        for key in (1, None, b"a", 1.5, (1,), True, float("nan"), np.str_("b"), Colour.RED)
    },
    "unreadable key": Kind(lambda: {Raises(): 1}, Refused(r" has the key \? of type Raises; keys must be str")),
    "surrogate key": Kind(lambda: {"a": {"\ud800": 1}}, Refused(r"\['a'\] has the key '\\ud800', a str with a lone")),
    "key 1 of a defaultdict": Kind(
        lambda: collections.defaultdict(int, {1: 2}), Refused(" has the key 1 of type int; keys must be str")
    ),
    "64 levels": Kind(lambda: nested(64), None, at_any_depth=False),
    "65 levels": Kind(lambda: nested(65), _TOO_DEEP, at_any_depth=False),
    "cyclic": Kind(cyclic, _TOO_DEEP, at_any_depth=False),
    "1000 levels": Kind(lambda: nested(1000), _TOO_DEEP, at_any_depth=False),
}

OBJECTS: dict[str, Kind] = {
    "IntEnum": Kind(lambda: Level.HIGH, 7),
    "str and Enum": Kind(lambda: Colour.RED, "red"),
    "Enum": Kind(lambda: Shade.DARK, Refused(f" is a Shade{_CANNOT}")),
    "namedtuple": Kind(lambda: Pair(1, np.arange(3)), [1, np.arange(3)]),
    "subclasses": Kind(lambda: [Text("a"), Number(3), Real(0.5), Raw(b"r")], ["a", 3, 0.5, b"r"]),
    "defaultdict": Kind(lambda: collections.defaultdict(list, {"a": [1]}), {"a": [1]}),
    "OrderedDict": Kind(lambda: collections.OrderedDict(b=1, a=np.float32(2)), {"b": 1, "a": 2.0}),
    "Counter": Kind(lambda: collections.Counter("aab"), {"a": 2, "b": 1}),
    "unreadable list": Kind(
        lambda: Unreadable([1]), Refused(" is a Unreadable that cannot be read: it raised RuntimeError")
    ),
    "unreadable dict": Kind(
        lambda: UnreadableDict(a=1), Refused(" is a UnreadableDict that cannot be read: it raised")
    ),
    "frozen": Kind(lambda: Frozen(1, Frozen(2, np.arange(4))), {"n": 1, "inner": {"n": 2, "inner": np.arange(4)}}),
    "computed field": Kind(lambda: Derived(2), {"n": 2, "twice": 4}),
    "unset field": Kind(Late, Refused(r"\.late is not set")),
    "set in a dataclass": Kind(lambda: Frozen(1, [Holder({1})]), Refused(rf"\.inner\[0\]\.x is a set{_CANNOT}")),
    "key in a dataclass": Kind(lambda: Holder({1: 2}), Refused(r"\.x has the key 1 of type int; keys must be str")),
    "dataclass and dict": Kind(Tagged, Refused(" is a Tagged, a dataclass that is also a dict")),
    "dataclass itself": Kind(lambda: Holder, Refused(f" is a type{_CANNOT}")),
    **{
        f"a {kind}": Kind(make, Refused(f" is a {kind}{_CANNOT}"))
        for kind, make in (
            ("set", lambda: {1}),
            ("frozenset", frozenset),
            ("complex", lambda: 1j),
            ("Decimal", lambda: decimal.Decimal(1)),
            ("datetime", lambda: datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)),
            ("range", lambda: range(3)),
            ("object", object),
            ("ellipsis", lambda: ...),
            ("array", lambda: array.array("f", [1])),
            ("Lies", Lies),
            ("ExtType", lambda: msgpack.ExtType(1, b"any")),
            ("Timestamp", lambda: msgpack.Timestamp(1)),
            ("map", lambda: map(str, ())),
        )
    },
    "what raises": Kind(Raises, Refused(f" is a Raises{_CANNOT}.*; send it as an array, np.asarray of it")),
    "of another library": Kind(OfAnother, Refused(f" is a OfAnother{_CANNOT}.*; send it as an array, np.from_dlpack")),
}
KINDS: dict[str, Kind] = {**ARRAYS, **SCALARS, **PLAIN, **OBJECTS}

# Where in a message a value lies: what is sent, what arrives, and the path.
PLACES: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any], str]] = {
    "alone": (lambda value: value, lambda value: value, ""),
    "deep": (lambda value: {"a": [1, (value,)]}, lambda value: {"a": [1, [value]]}, r"\['a'\]\[1\]\[0\]"),
    "in a dataclass": (Holder, lambda value: {"x": value}, r"\.x"),
    "beside a large array": (
        lambda value: [np.ones(200), value],
        lambda value: [np.ones(200), value],
        r"\[1\]",
    ),
}


def made(kind: str, place: str) -> Any:
    """The value that is to be sent."""
    return PLACES[place][0](KINDS[kind].make())


def described(value: Any) -> str:
    """All that there is to a value, so that two are the same where these are."""
    if isinstance(value, np.ndarray):
        dtype = value.dtype
        return f"{type(value).__name__} {dtype.name} {dtype.str} {value.shape} {value.tobytes().hex()}"
    if isinstance(value, dict):
        inner = ", ".join(f"{key!r}: {described(each)}" for key, each in value.items())
        return f"{type(value).__name__} {{{inner}}}"
    if isinstance(value, (list, tuple)):
        return f"{type(value).__name__} [{', '.join(map(described, value))}]"
    return f"{type(value).__name__} {value!r}"
