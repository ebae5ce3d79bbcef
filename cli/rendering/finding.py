"""What a check of `slabwire doctor` found."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

State = Literal["ok", "note", "broken"]


@dataclass(frozen=True)
class Finding:
    """One check: what was found, and what mends it. A "note" works, but less well or untested."""

    name: str
    state: State
    found: str
    fix: str = ""

    def to_plain(self) -> dict[str, Any]:
        return asdict(self)
