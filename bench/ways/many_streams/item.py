"""An item of a stream: when its step began, and whose it is. All have one length, as those who count bytes wish."""

from __future__ import annotations

from ...harness.load import MOST_STREAMS

_STAMP_DIGITS, _NUMBER_DIGITS = 20, len(str(MOST_STREAMS - 1))
ITEM_NBYTES = _STAMP_DIGITS + _NUMBER_DIGITS + 2


def stamp_of(now_ns: int) -> str:
    """The first part, the same for all items of a step, or of its batch; the moment is one of `time.monotonic_ns`."""
    return f"{now_ns:0{_STAMP_DIGITS}d}"


def mark_of(number: int) -> str:
    """The second part, the same for all items of a stream."""
    return f" {number:0{_NUMBER_DIGITS}d}\n"


def made_ns(item: str) -> int:
    """When its step began."""
    return int(item[:_STAMP_DIGITS])
