"""How a graph has stopped: what was cut off, and which workers did not end as they should. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

# The exit status of a supervisor, and of `slabwire run` and `stop`, after a stop that was not clean.
UNCLEAN = 6
# What callers get to hear of it when their work is cut off.
CUT_WITHIN_S = 2.0


@dataclass(frozen=True)
class Stopped:
    """`cut_off` counts by actor the messages that waited for it or were being handled when they were not waited for any
    longer; `failed` says of workers that crashed while they stopped, or had to be killed, how they ended.
    """

    cut_off: Mapping[str, int] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_clean(self) -> bool:
        """Whether all work was done, and all workers ended as they were told."""
        return not (self.cut_off or self.failed)

    def text(self, graph: str) -> str:
        """What was not as it should be, in words; "" after a clean stop."""
        parts = []
        if count := sum(self.cut_off.values()):
            by_actor = ", ".join(f"{actor} {number}" for actor, number in self.cut_off.items())
            parts.append(f"{count} message{'s were' if count > 1 else ' was'} cut off ({by_actor})")
        parts += [f"{worker} {how}" for worker, how in self.failed.items()]
        hint = f"; `slabwire logs {graph} --crash` tells more" if self.failed else ""
        return "; ".join(parts) + hint

    def to_plain(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Self:
        return cls(dict(plain.get("cut_off", {})), dict(plain.get("failed", {})))
