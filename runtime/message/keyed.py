"""A request with an idempotency key: the key travels as a field whose name is none, behind a flag of the record."""

from __future__ import annotations

from typing import Any

from ..errors import MessageError
from .header import Flag

KEYED = Flag.KEYED
# No parameter can bear this name, and nobody may send a field that no parameter bears.
_NAME = ""


def with_key(fields: dict[str, Any], key: str) -> dict[str, Any]:
    """The fields of a message that carries a key; its record is to be flagged `KEYED`."""
    return {**fields, _NAME: key}


def take_key(value: Any) -> str:
    """Takes the key out of the fields of a flagged record. Raises MessageError where it has none."""
    key = value.pop(_NAME, None) if isinstance(value, dict) else None
    if not isinstance(key, str):
        raise MessageError("a message says that it carries an idempotency key, and carries none")
    return key
