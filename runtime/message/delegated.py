"""What travels with a request that its handler has handed on: how often that was done, and who wants a report."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from ...shm.errors import MessageError

# A request that is handed on for ever would be answered by nobody.
MOST_HOPS = 8


class ReportTo(NamedTuple):
    """A delegator that wants to know what its request came to: one port of one replica, by the number of its route.

    `about` is its own note, which comes back with the report; items and values of up to `nbytes` are kept for it.
    """

    route: int
    replica: int
    about: Any
    nbytes: int


class Whereabouts(NamedTuple):
    """Where a request lies that was handed on: before the entry of a route, at one replica, after so many hops."""

    route: int
    replica: int
    hops: int


# The field that has these: a user's field must have the name of a parameter, and none can have this one.
_FIELD = ">"


def with_hops(fields: dict[str, Any], hops: int, reports: Iterable[ReportTo]) -> dict[str, Any]:
    """The fields of a request that is handed on. The delegator must flag its record with `Flag.DELEGATED`."""
    return {**fields, _FIELD: [hops, [list(each) for each in reports]]}


def take_hops(value: Any) -> tuple[int, tuple[ReportTo, ...]]:
    """Takes hops and reports out of the fields of a flagged record. Raises MessageError where it has none."""
    found: Any = value.pop(_FIELD, None) if isinstance(value, dict) else None
    try:
        hops, reports = found
        return int(hops), tuple(ReportTo(*each) for each in reports)
    except (TypeError, ValueError):
        raise MessageError("a message says that it was handed on, and does not say how often") from None


def whereabouts_of(value: Any) -> Whereabouts:
    """Read from the record that tells a caller. Raises MessageError for what is none."""
    try:
        found = Whereabouts(*value)
    except TypeError:
        raise MessageError("a record says that a request was handed on, and not where to") from None
    if not all(isinstance(each, int) and each >= 0 for each in found):
        raise MessageError("a record says that a request was handed on to a place that cannot be")
    return found
