"""An error packed for whoever waits for an answer."""

from __future__ import annotations

import logging

from ..shm.pool import Pool
from .errors import OutOfMemory, SlabwireError
from .message import INLINE_NBYTES
from .parcel import Parcel

logger = logging.getLogger("slabwire")


def failure(error: SlabwireError, actor: str, pool: Pool) -> Parcel:
    """Its code and text; where there is no block for a long one, as much as fits the record."""
    try:
        return Parcel([error.code, str(error)], pool)
    except OutOfMemory:  # which is most likely what the error is about
        logger.error("%s: %s", actor, error)
        return Parcel([error.code, _cut(str(error), INLINE_NBYTES - len(error.code) - 8)], pool)


def _cut(text: str, nbytes: int) -> str:
    """As much of a text as has room in so many bytes of UTF-8, with dots at the end where it was cut."""
    packed = text.encode()
    return text if len(packed) <= nbytes else packed[: nbytes - 3].decode(errors="ignore") + "..."
