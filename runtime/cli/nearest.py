"""What somebody may have meant who wrote a name that there is not."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any


def did_you_mean(word: str, possible: Sequence[str] | dict[str, Any]) -> str:
    """The end of a message about an unknown name: the closest ones, else all of a few, else nothing."""
    close = get_close_matches(word, list(possible), n=3, cutoff=0.6)
    if close:
        return f"; did you mean {' or '.join(map(repr, close))}?"
    return f"; there is {', '.join(map(repr, sorted(possible)))}" if 0 < len(possible) <= 16 else ""
