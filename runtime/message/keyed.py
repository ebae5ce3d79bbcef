"""A request with an idempotency key. The key is a field with an empty name, and a flag of the record says so."""

from __future__ import annotations

from typing import Any

from ..errors import MessageError
from .header import Flag

KEYED = Flag.KEYED
# No parameter can have this name, and a user's field must have the name of a parameter.
_NAME = ""


def with_key(fields: dict[str, Any], key: str) -> dict[str, Any]:
    """The fields of a message that carries a key. The caller must flag its record with `KEYED`."""
    return {**fields, _NAME: key}


def take_key(value: Any) -> str:
    """Takes the key out of the fields of a flagged record. Raises MessageError where it has none."""
    key = value.pop(_NAME, None) if isinstance(value, dict) else None
    if not isinstance(key, str):
        raise MessageError("a message says that it carries an idempotency key, and carries none")
    return key
