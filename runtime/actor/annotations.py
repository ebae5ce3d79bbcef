"""From annotation to `TypeSpec`, and the checks that follow from one. No I/O.

jaxtyping's tensors are recognised by their `dtypes` and `dim_str`, so that nobody needs jaxtyping who does not use it.
"""

from __future__ import annotations

import collections.abc as abc
import dataclasses
import inspect
import sys
import types
import typing
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from ..spec import TypeKind, TypeSpec
from .axes import clash, shape_check
from .reply_stream import ReplyStream

Check = Callable[[Any, dict[str, int]], str | None]

ANY = TypeSpec()
STREAMS = (abc.Iterator, abc.Generator)
ASYNC_STREAMS = (abc.AsyncIterator, abc.AsyncGenerator)
_SENT_STREAMS = (abc.AsyncIterator, abc.AsyncIterable, abc.AsyncGenerator)
_ITERABLES = (*STREAMS, *ASYNC_STREAMS, abc.Iterable, abc.AsyncIterable, ReplyStream)
_NUMBERS: tuple[TypeKind, ...] = ("bool", "int", "float")  # each may stand for those after it
_KINDS: tuple[tuple[type, TypeKind], ...] = (
    (bool, "bool"),
    (int, "int"),
    (float, "float"),
    (str, "str"),
    (bytes, "bytes"),
    (tuple, "list"),
    (list, "list"),
    (dict, "dict"),
)
_CLASSES: dict[TypeKind, tuple[type, ...]] = {
    "bool": (bool, np.bool_),
    "int": (int, np.integer),
    "float": (float, int, np.floating, np.integer),
    "str": (str,),
    "bytes": (bytes, bytearray, memoryview),
    "list": (list, tuple),
}


def type_of(annotation: Any) -> TypeSpec:
    """What `annotation` says about a value; what it cannot say is "any". Never raises."""
    if annotation is None or annotation is type(None):
        return TypeSpec("none", "None")
    if hasattr(annotation, "dtypes") and hasattr(annotation, "dim_str"):
        return _jaxtyping(annotation)
    origin = typing.get_origin(annotation)
    if origin is not None:
        return _generic(origin, typing.get_args(annotation))
    if isinstance(annotation, typing.NewType):
        return type_of(annotation.__supertype__)
    return _class(annotation) if isinstance(annotation, type) else ANY


def item_type(annotation: Any) -> TypeSpec:
    """The type of one item of an iterator, generator or iterable, asynchronous or not, or of a reply stream."""
    if typing.get_origin(annotation) is typing.Annotated:
        return item_type(typing.get_args(annotation)[0])
    arguments = typing.get_args(annotation)
    return type_of(arguments[0]) if typing.get_origin(annotation) in _ITERABLES and arguments else ANY


def is_sent_stream(annotation: Any) -> bool:
    """Whether a parameter of this annotation is a stream that the caller sends."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return is_sent_stream(typing.get_args(annotation)[0])
    return any(each is annotation or each is origin for each in _SENT_STREAMS)


def may_be_sent_stream(annotation: Any) -> bool:
    """Whether a parameter of this annotation may be such a stream, or something else."""
    origin = typing.get_origin(annotation)
    return origin in (typing.Union, types.UnionType) and any(map(is_sent_stream, typing.get_args(annotation)))


def item_hint(annotation: Any) -> Any:
    """The annotation of one item of a stream; Any where it has none."""
    if typing.get_origin(annotation) is typing.Annotated:
        return item_hint(typing.get_args(annotation)[0])
    return next(iter(typing.get_args(annotation)), Any)


def element_type(annotation: Any) -> TypeSpec:
    """The type of one element of a `list[X]`."""
    arguments = typing.get_args(annotation)
    return type_of(arguments[0]) if type_of(annotation).kind == "list" and arguments else ANY


def hints_of(function: Any) -> dict[str, Any]:
    """The annotations of a function or class, strings resolved; one that cannot be resolved becomes Any."""
    try:
        return typing.get_type_hints(function, include_extras=True)
    except Exception:  # an annotation is the user's expression: it may raise anything
        return {name: _resolved(function, text) for name, text in inspect.get_annotations(function).items()}


def _resolved(function: Any, annotation: Any) -> Any:
    module = sys.modules.get(getattr(function, "__module__", ""))
    names = getattr(inspect.unwrap(function), "__globals__", None) or vars(module or types)
    holder = types.FunctionType((lambda: None).__code__, names)
    holder.__annotations__ = {"it": annotation}
    try:
        return typing.get_type_hints(holder, include_extras=True)["it"]
    except Exception:
        return Any


def _jaxtyping(annotation: Any) -> TypeSpec:
    dtypes = annotation.dtypes
    listed = isinstance(dtypes, (tuple, list)) and all(isinstance(each, str) for each in dtypes)
    name = getattr(getattr(annotation, "dtype", None), "__name__", "Array")
    text = annotation.dim_str
    return TypeSpec("tensor", f"{name}[{text}]", tuple(dtypes) if listed else (), tuple(text.split()))


def _generic(origin: Any, arguments: tuple[Any, ...]) -> TypeSpec:
    if origin is typing.Annotated:
        return type_of(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return _union([type_of(each) for each in arguments])
    if origin is typing.Literal:
        united = _union([type_of(type(each)) for each in arguments])
        return dataclasses.replace(united, text=f"Literal[{', '.join(map(repr, arguments))}]")
    if origin is np.ndarray:
        return _numpy(arguments[1] if len(arguments) > 1 else None)
    spec = _class(origin) if isinstance(origin, type) else ANY
    if spec.kind not in ("list", "dict"):
        return spec
    inner = ", ".join("..." if each is ... else type_of(each).text for each in arguments)
    return dataclasses.replace(spec, text=f"{origin.__name__}[{inner}]")


def _class(annotation: type) -> TypeSpec:
    if dataclasses.is_dataclass(annotation):
        return TypeSpec("dict", annotation.__name__, keys=tuple(each.name for each in dataclasses.fields(annotation)))
    if typing.is_typeddict(annotation):
        return TypeSpec("dict", annotation.__name__, keys=tuple(annotation.__annotations__))
    if issubclass(annotation, np.ndarray):
        return TypeSpec("tensor", "ndarray")
    for base, kind in _KINDS:
        if issubclass(annotation, base):
            return TypeSpec(kind, annotation.__name__)
    if annotation in (abc.Mapping, abc.MutableMapping):
        return TypeSpec("dict", "dict")
    return TypeSpec("list", "list") if annotation in (abc.Sequence, abc.MutableSequence) else ANY


def _numpy(dtype: Any) -> TypeSpec:
    given = next(iter(typing.get_args(dtype)), None)
    scalar = typing.get_origin(given) or given  # np.floating[Any] is np.floating
    if not isinstance(scalar, type) or scalar is np.generic:
        return TypeSpec("tensor", "ndarray")
    names = {np.dtype(each).name for each in set(np.sctypeDict.values()) if issubclass(each, scalar)}
    return TypeSpec("tensor", f"ndarray[{scalar.__name__}]", tuple(sorted(names)))


def _union(members: list[TypeSpec]) -> TypeSpec:
    optional = any(each.kind == "none" or each.optional for each in members)
    some = list(dict.fromkeys(each for each in members if each.kind != "none"))
    if not some:
        return TypeSpec("none", "None")
    text = " | ".join(dict.fromkeys(each.text for each in some))
    if optional and not text.endswith("None"):
        text = f"{text} | None"
    united = some[0] if len(some) == 1 else _wider(some)
    return dataclasses.replace(united, text=text, optional=optional)


def _wider(members: list[TypeSpec]) -> TypeSpec:
    kinds = {each.kind for each in members}
    if kinds <= set(_NUMBERS):
        return TypeSpec(max(kinds, key=_NUMBERS.index))
    if kinds == {"tensor"}:
        known = all(each.dtypes for each in members)
        dtypes = sorted({name for each in members for name in each.dtypes}) if known else ()
        dims = members[0].dims if len({each.dims for each in members}) == 1 else None
        return TypeSpec("tensor", dtypes=tuple(dtypes), dims=dims)
    return TypeSpec(kinds.pop()) if len(kinds) == 1 else ANY


def why_not(source: TypeSpec, target: TypeSpec) -> str | None:
    """Why nothing that `source` carries can ever be what `target` takes; None where they can meet.

    That both may be None does not help: None ends a request and never travels along an edge.
    """
    if "any" in (source.kind, target.kind):
        return None
    if source.kind == "none":
        return None if target.optional or target.kind == "none" else f"None is not {target.text}"
    if source.kind == target.kind == "tensor":
        return _tensors_clash(source, target)
    if source.kind in _NUMBERS and target.kind in _NUMBERS:
        widens = _NUMBERS.index(source.kind) <= _NUMBERS.index(target.kind)
        return None if widens else f"{source.text} is not {target.text}"
    return None if source.kind == target.kind else f"{source.text} is not {target.text}"


def _tensors_clash(source: TypeSpec, target: TypeSpec) -> str | None:
    if source.dtypes and target.dtypes and not set(source.dtypes) & set(target.dtypes):
        return f"dtype {_either(source.dtypes)} is not {_either(target.dtypes)}"
    return clash(source.dims, target.dims)


def _either(dtypes: tuple[str, ...]) -> str:
    return " or ".join(dtypes) if len(dtypes) <= 3 else f"one of {', '.join(dtypes)}"


def mismatch(value: Any, spec: TypeSpec, axes: dict[str, int]) -> str | None:
    """What was expected and what came, where `value` is not of `spec`; None where it is.

    `axes` holds the sizes of the named axes seen so far in the same message, and is filled.
    Expressions over axes ("h+1") are not evaluated.
    """
    check = check_of(spec)
    return None if check is None else check(value, axes)


@lru_cache(maxsize=4096)
def check_of(spec: TypeSpec) -> Check | None:
    """`mismatch` for one type with all that can be computed beforehand; None where anything goes."""
    if spec.kind == "any":
        return None
    if spec.kind == "tensor":
        return _tensor_check(spec)
    accepts = _acceptor(spec)

    def check(value: Any, _axes: dict[str, int]) -> str | None:
        return None if accepts(value) else f"expected {spec.text}, got {_described(value)}"

    return check


def _acceptor(spec: TypeSpec) -> Callable[[Any], bool]:
    optional = spec.optional or spec.kind == "none"
    if spec.kind == "none":
        return lambda value: value is None
    if spec.kind == "dict":
        return lambda value: (
            isinstance(value, dict) or (value is None and optional) or (dataclasses.is_dataclass(value))
        )
    classes = (*_CLASSES[spec.kind], types.NoneType) if optional else _CLASSES[spec.kind]
    return lambda value: isinstance(value, classes)


def _tensor_check(spec: TypeSpec) -> Check:
    names, dtypes = frozenset(spec.dtypes), _dtypes(spec.dtypes)
    fits = shape_check(spec.dims)
    array = np.ndarray

    def check(value: Any, axes: dict[str, int]) -> str | None:
        known = len(axes)
        if isinstance(value, array):
            if (not names or value.dtype in dtypes or _is_named(value.dtype, names)) and fits(value.shape, axes):
                return None
        elif value is None and spec.optional:
            return None
        given = ", ".join(f"{name}={size}" for name, size in list(axes.items())[:known] if name in (spec.dims or ()))
        return f"expected {spec.text}{' with ' + given if given else ''}, got {_described(value)}"

    return check


def _is_named(dtype: np.dtype[Any], names: frozenset[str]) -> bool:
    """The name is what counts, in either byte order, but it takes numpy a microsecond to make; that of the kind stands
    for every length and unit.
    """
    return dtype.name in names or np.dtype(dtype.type).name in names


def _dtypes(names: tuple[str, ...]) -> frozenset[np.dtype[Any]]:
    known = set()
    for name in names:
        try:
            known.add(np.dtype(name))
        except TypeError:  # a dtype of another library (bfloat16): compared by name
            continue
    return frozenset(known)


def _described(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype.name} of shape {value.shape}"
    return "None" if value is None else type(value).__name__
