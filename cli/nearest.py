"""What somebody may have meant who wrote a name that there is not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..runtime.spelling import nearest


def did_you_mean(word: str, possible: Sequence[str] | dict[str, Any]) -> str:
    """The end of a message about an unknown name: the closest ones, else all of a few, else nothing."""
    close = nearest(word, possible, 3)
    if close:
        return f"; did you mean {' or '.join(map(repr, close))}?"
    return f"; there is {', '.join(map(repr, sorted(possible)))}" if 0 < len(possible) <= 16 else ""
