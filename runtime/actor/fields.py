"""The fields of a message against those that a port takes: for clients, which know only its `HandlerSpec`."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable
from typing import Any

from ..errors import MessageError
from ..spec import FieldSpec, HandlerSpec
from ..spelling import did_you_mean, shortened
from .annotations import Check, check_of

# What Python iterates over, and nobody means as a stream.
_NO_STREAMS = (str, bytes, bytearray, memoryview, dict)


def takes(spec: HandlerSpec) -> str:
    """`it takes pixels: UInt8[h w 3], words: a stream of str, threshold: float (optional)`."""
    listed = (
        f"{each.name}: {'a stream of ' * each.stream}{each.type.text}{'' if each.required else ' (optional)'}"
        for each in spec.fields
    )
    return f"it takes {', '.join(listed) or 'no fields'}"


def fields_of(spec: HandlerSpec, owner: str, args: tuple[Any, ...], named: dict[str, Any]) -> dict[str, Any]:
    """The message that a call of `owner`'s port with these arguments sends.

    Raises MessageError for too many arguments, a field given twice, missing or unknown, and a value of a wrong type.
    """
    port = f"{owner}.{spec.port}"
    if len(args) > len(spec.fields):
        raise MessageError(f"{port}: {len(args)} positional values were given; {takes(spec)}")
    placed = {field.name: value for field, value in zip(spec.fields, args, strict=False)}
    twice = next((name for name in named if name in placed), None)
    if twice is not None:
        raise MessageError(f"{port}: field '{twice}' was given twice, by position and by name; {takes(spec)}")
    fields = {**placed, **named}
    check_names(spec, owner, fields)
    check_types(spec, owner, fields)
    return fields


def check_names(spec: HandlerSpec, owner: str, fields: dict[str, Any]) -> None:
    """Raises MessageError for a field that is missing or unknown."""
    names = [each.name for each in spec.fields]
    for name in fields:
        if name not in names:
            hint = did_you_mean(name, names)
            raise MessageError(f"{owner}.{spec.port}: there is no field '{shortened(name)}'{hint}; {takes(spec)}")
    for each in spec.fields:
        if each.required and each.name not in fields:
            raise MessageError(f"{owner}.{spec.port}: field '{each.name}' is missing; {takes(spec)}")


class CallFields:
    """What one port takes, with all computed beforehand that can be: for clients, which call a port many times."""

    __slots__ = ("_check", "_only", "_optional", "owner", "spec", "stream")

    def __init__(self, spec: HandlerSpec, owner: str) -> None:
        self.spec = spec
        self.owner = owner
        single = spec.fields[0] if len(spec.fields) == 1 else None
        self._only = single.name if single else None
        self._check = _check_of_field(single) if single else None
        self._optional = single is not None and not single.required
        # The name of the field that is a stream: its value is iterated over by the caller, and no part of the message.
        self.stream = spec.sent_stream.name if spec.sent_stream is not None else None

    def fields(self, args: tuple[Any, ...], named: dict[str, Any]) -> dict[str, Any]:
        """The message that a call with these arguments sends; `fields_of` for one spec."""
        only = self._only
        if only is None or named or len(args) != 1:
            return fields_of(self.spec, self.owner, args, named)
        value = args[0]
        wrong = self._check(value, {}) if self._check is not None else None
        if wrong is not None and (value is not None or not self._optional):
            raise MessageError(f"{self.owner}.{self.spec.port}: field '{only}': {wrong}")
        return {only: value}


def check_types(spec: HandlerSpec, owner: str, fields: dict[str, Any]) -> None:
    """Raises MessageError for a value that its field does not take; named axes must agree between fields."""
    axes: dict[str, int] = {}
    for each in spec.fields:
        if each.name in fields:
            check = _check_of_field(each)
            wrong = check(fields[each.name], axes) if check is not None else None
            if wrong is not None and (each.required or fields[each.name] is not None):
                raise MessageError(f"{owner}.{spec.port}: field '{each.name}': {wrong}")


def _check_of_field(field: FieldSpec) -> Check | None:
    """`check_of` for the value that a caller gives for a field: of a stream the items are checked where they arrive."""
    return _check_of_stream if field.stream else check_of(field.type)


def _check_of_stream(value: Any, _axes: dict[str, int]) -> str | None:
    if isinstance(value, (Iterable, AsyncIterable)) and not isinstance(value, _NO_STREAMS):
        return None
    return f"expected a stream (an iterable or an asynchronous one), got {type(value).__name__}"
