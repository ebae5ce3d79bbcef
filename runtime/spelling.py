"""What somebody may have meant who wrote a name that there is not."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable

# To look for what is near takes longer than linearly, and names come from clients: nobody misspells a longer one.
_LONGEST_NAME = 100


def nearest(name: str, known: Iterable[str], most: int = 1) -> list[str]:
    """The known names that are nearest to this one, the nearest first; none where it is longer than names are."""
    return difflib.get_close_matches(name, list(known), most) if len(name) <= _LONGEST_NAME else []


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'pixels'?` where a known name is near, else nothing."""
    near = nearest(name, known)
    return f"; did you mean '{near[0]}'?" if near else ""


def near_or_all(name: str, known: Collection[str]) -> str:
    """The end of a message about a name that a person typed: up to three near ones, else all of a few, else nothing."""
    if near := nearest(name, known, 3):
        return f"; did you mean {' or '.join(map(repr, near))}?"
    return f"; there is {', '.join(map(repr, sorted(known)))}" if 0 < len(known) <= 16 else ""


def shortened(name: str) -> str:
    """A name that somebody gave, as an error quotes it: no longer than names are."""
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
