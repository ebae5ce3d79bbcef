"""Dataclasses out of the dicts that messages carry them as."""

from __future__ import annotations

import collections.abc as abc
import dataclasses
import types
import typing
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from ..errors import MessageError
from .annotations import Check, check_of, hints_of, type_of

Rebuild = Callable[[Any], Any]
_LISTS = (list, abc.Sequence, abc.MutableSequence)
_DICTS = (dict, abc.Mapping, abc.MutableMapping)


def rebuild_of(annotation: Any) -> Rebuild | None:
    """A function from what arrived to what the annotation promises; None where what arrived is that already.

    It raises MessageError for a dict that lacks a field of its dataclass, has an unknown one or one of a wrong type.
    """
    if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
        return lambda value: _instance(annotation, value)
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if isinstance(origin, type) and dataclasses.is_dataclass(origin):
        return rebuild_of(origin)
    if origin is typing.Annotated:
        return rebuild_of(arguments[0])
    if origin in (typing.Union, types.UnionType):
        some = [each for each in arguments if each is not types.NoneType]
        return rebuild_of(some[0]) if len(some) == 1 else None
    inner = rebuild_of(arguments[-1]) if origin in (*_LISTS, *_DICTS) and arguments else None
    if inner is None:
        return None
    return _each_element(inner) if origin in _LISTS else _each_value(inner)


def _each_element(inner: Rebuild) -> Rebuild:
    return lambda value: [inner(each) for each in value] if isinstance(value, (list, tuple)) else value


def _each_value(inner: Rebuild) -> Rebuild:
    return lambda value: {key: inner(each) for key, each in value.items()} if isinstance(value, dict) else value


@dataclasses.dataclass(frozen=True)
class _Member:
    check: Check | None
    rebuild: Rebuild | None
    required: bool
    init: bool


@lru_cache(maxsize=1024)
def _members(cls: type) -> dict[str, _Member]:
    hints = hints_of(cls)
    return {each.name: _member(each, hints.get(each.name, Any)) for each in dataclasses.fields(cls)}


def _member(field: dataclasses.Field[Any], hint: Any) -> _Member:
    missing = dataclasses.MISSING
    required = field.init and field.default is missing and field.default_factory is missing
    return _Member(check_of(type_of(hint)), rebuild_of(hint), required, field.init)


def _instance(cls: type, value: Any) -> Any:
    if not isinstance(value, dict):  # None for an optional one, or an instance that never left its process
        return value
    members = _members(cls)
    unknown = next((name for name in value if name not in members), None)
    if unknown is not None:
        raise MessageError(f"{cls.__name__} has no field '{unknown}'; it has {', '.join(members)}")
    axes: dict[str, int] = {}
    taken = {}
    for name, member in members.items():
        if name in value:
            taken[name] = _taken(f"{cls.__name__}.{name}", member, value[name], axes)
        elif member.required:
            raise MessageError(f"{cls.__name__}: field '{name}' is missing")
    instance = cls(**{name: each for name, each in taken.items() if members[name].init})
    for name, each in taken.items():
        if not members[name].init:
            object.__setattr__(instance, name, each)  # what the sender had, though the class be frozen
    return instance


def _taken(name: str, member: _Member, value: Any, axes: dict[str, int]) -> Any:
    wrong = member.check(value, axes) if member.check is not None else None
    if wrong is not None:
        raise MessageError(f"{name}: {wrong}")
    return member.rebuild(value) if member.rebuild is not None else value
