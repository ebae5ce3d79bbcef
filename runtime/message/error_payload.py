"""An error, encoded for the caller that waits for an answer."""

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
    """The code and the text that are sent. Never raises, although both may come from a class of the user."""
    return [_code_of(error), text_of(error)]


def failure(error: SlabwireError, actor: str, pool: Pool) -> Payload:
    """The error's code and text. Where there is no block for a long text, as much of it as fits the record."""
    code, text = wire_form(error)
    try:
        return Payload([code, text], pool)
    except OutOfMemory:  # most likely the error is about the same lack of memory
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
    """As much of a text as fits `nbytes` of UTF-8, with dots at the end if it was cut."""
    packed = text.encode()
    return text if len(packed) <= nbytes else packed[: nbytes - 3].decode(errors="ignore") + "..."
