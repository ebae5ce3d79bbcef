"""The fields of a request's body, taken one by one with their types and ranges checked."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any, TypeVar

from .refusals import Refusal

T = TypeVar("T")

_MOST_SHOWN = 60
_NAMES = {
    bool: "a boolean",
    int: "an integer",
    float: "a decimal number",
    str: "a string",
    list: "an array",
    dict: "an object",
    type(None): "null",
}


def shown(value: object) -> str:
    """A value as it stands in an error's text: as JSON has it, and never longer than a line."""
    text = ""
    for piece in _pieces(value):
        text += piece
        if len(text) > _MOST_SHOWN:
            return f"{text[: _MOST_SHOWN - 1]}…"
    return text


def _pieces(value: object) -> Iterator[str]:
    """The JSON of a value, piece by piece: of a large one only the beginning is ever made."""
    if isinstance(value, str):
        yield json.dumps(value[:_MOST_SHOWN], ensure_ascii=False)
    elif isinstance(value, list):
        yield "["
        for index, each in enumerate(value):
            yield ", " if index else ""
            yield from _pieces(each)
        yield "]"
    elif isinstance(value, dict):
        yield "{"
        for index, (name, each) in enumerate(value.items()):
            yield ", " if index else ""
            yield from _pieces(name)
            yield ": "
            yield from _pieces(each)
        yield "}"
    else:
        yield json.dumps(value)


def named(name: str) -> str:
    """A name that a client gave, as it stands in an error's text."""
    text = json.dumps(name[: _MOST_SHOWN + 1], ensure_ascii=False)[1:-1]
    return f"'{text}'" if len(text) <= _MOST_SHOWN else f"'{text[: _MOST_SHOWN - 1]}…'"


def wrong_type(param: str, value: object, wanted: str) -> Refusal:
    """The error for a value of another JSON type than the one wanted ("a string")."""
    got = _NAMES.get(type(value), type(value).__name__)
    return Refusal(f"Invalid type for '{param}': expected {wanted}, but got {got} instead.", param, "invalid_type")


def wrong_value(param: str, value: object, wanted: str) -> Refusal:
    """The error for a value of the right type that is out of range."""
    return Refusal(f"Invalid value for '{param}': expected {wanted}, but got {shown(value)}.", param, "invalid_value")


class Parameters:
    """A JSON object. As in OpenAI's interface a field that is null counts as one that is not there.

    Each method gives the field's value, None where it is absent, and raises Refusal, which names the field.
    """

    def __init__(self, given: Mapping[str, Any], path: str = "") -> None:
        self._given = {name: value for name, value in given.items() if value is not None}
        self._path = f"{path}." if path else ""

    @property
    def names(self) -> Collection[str]:
        return self._given.keys()

    def any(self, name: str) -> Any:
        """Whatever was given."""
        return self._given.get(name)

    def text(self, name: str) -> str | None:
        return self._typed(name, str)

    def flag(self, name: str) -> bool | None:
        return self._typed(name, bool)

    def object(self, name: str) -> dict[str, Any] | None:
        return self._typed(name, dict)

    def integer(self, name: str, lowest: int, highest: int) -> int | None:
        """A whole number from `lowest` to `highest`, both included; 1.0 is none."""
        value = self._typed(name, int)
        if value is not None and not lowest <= value <= highest:
            raise wrong_value(self._path + name, value, f"an integer from {lowest} to {highest}")
        return value

    def number(self, name: str, lowest: float, highest: float) -> float | None:
        """A number from `lowest` to `highest`, both included."""
        value = self._given.get(name)
        if value is None:
            return None
        if type(value) not in (int, float):
            raise wrong_type(self._path + name, value, "a number")
        if not lowest <= value <= highest:
            raise wrong_value(self._path + name, value, f"a number from {lowest:g} to {highest:g}")
        return float(value)

    def _typed(self, name: str, wanted: type[T]) -> T | None:
        value: T | None = self._given.get(name)
        # Not isinstance: True is no number here.
        if value is not None and type(value) is not wanted:
            raise wrong_type(self._path + name, value, _NAMES[wanted])
        return value
