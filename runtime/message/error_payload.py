"""An error packed for whoever waits for an answer."""

from __future__ import annotations

import logging

from ...shm.pool import Pool
from ..error_text import name_of, sendable, text_of
from ..errors import OutOfMemory, SlabwireError
from .header import INLINE_NBYTES
from .payload import Payload

logger = logging.getLogger("slabwire")

_LONGEST_CODE = 64


def wire_form(error: SlabwireError) -> list[str]:
    """The code and the text that travel. Never raises: both may be those of a class of the user's."""
    return [_code_of(error), text_of(error)]


def failure(error: SlabwireError, actor: str, pool: Pool) -> Payload:
    """The error's code and text. Where there is no block for a long text, as much of it as fits the record."""
    code, text = wire_form(error)
    try:
        return Payload([code, text], pool)
    except OutOfMemory:  # which is most likely what the error is about
        logger.error("%s: %s", actor, text)
        return Payload([code, _cut(text, INLINE_NBYTES - len(code.encode()) - 8)], pool)


def _code_of(error: SlabwireError) -> str:
    try:
        code = error.code
        if isinstance(code, str):
            return sendable(code, _LONGEST_CODE)
    except Exception:
        logger.error("the code of an error of class %s cannot be had", name_of(error))
    return SlabwireError.code


def _cut(text: str, nbytes: int) -> str:
    """As much of a text as has room in so many bytes of UTF-8, with dots at the end where it was cut."""
    packed = text.encode()
    return text if len(packed) <= nbytes else packed[: nbytes - 3].decode(errors="ignore") + "..."
