"""The messages of one line: objects in the program, documents on the line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from reprlib import repr as shortened
from types import UnionType
from typing import Any, Generic, NamedTuple, TypeVar, cast, get_origin, get_type_hints

from ..errors import ProtocolError

Message = TypeVar("Message", bound=NamedTuple)


class Schema(Generic[Message]):
    """Knows each type of a line by its name. `key` is where the name stands in a document. Any thread."""

    def __init__(self, key: str, types: Mapping[str, type[Message]]) -> None:
        self._key = key
        self._types = types
        self._names = {each: name for name, each in types.items()}
        self._expected: dict[type[Message], dict[str, tuple[type, ...]]] = {}  # of the types that were read

    def name_of(self, message: Message) -> str:
        return self._names[type(message)]

    def document(self, message: Message, **envelope: Any) -> dict[str, Any]:
        """The message as it travels, beside what its line adds: a token, say."""
        return {self._key: self.name_of(message), **message._asdict(), **envelope}

    def read(self, document: Mapping[str, Any]) -> Message:
        """The message in a document. Fields that nobody declared are ignored.

        Raises ProtocolError where the name is unknown, a field is missing, or a field has another type than declared.
        Of lists the items are not looked at.
        """
        name = document.get(self._key)
        kind = self._types.get(name) if isinstance(name, str) else None
        if kind is None:
            raise ProtocolError(f"nobody here knows the {self._key} {shortened(name)}")
        expected = self._expected.get(kind)
        if expected is None:
            expected = {field: _classes(hint) for field, hint in get_type_hints(kind).items()}
            self._expected[kind] = expected
        fields = {field: document[field] for field in expected if field in document}
        for field, value in fields.items():
            if not isinstance(value, expected[field]):
                raise ProtocolError(f"the {self._key} {name!r} is malformed: {field} is {shortened(value)}")
        try:
            return cast(Callable[..., Message], kind)(**fields)
        except TypeError as error:
            raise ProtocolError(f"the {self._key} {name!r} is malformed: {error}") from None


def _classes(hint: Any) -> tuple[type, ...]:
    """What isinstance is asked for a declared type."""
    if isinstance(hint, UnionType):
        return tuple(each for part in hint.__args__ for each in _classes(part))
    kind = object if hint is Any else get_origin(hint) or hint
    return (int, float) if kind is float else (kind,)
