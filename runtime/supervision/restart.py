"""Whether a child is started again, how often and how soon. No I/O; time and chance are arguments."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from ..spec import INTENSITY, WITHIN_S, Restart

FIRST_DELAY_S = 0.05
LONGEST_DELAY_S = 1.0
# Of a worker whose code cannot be imported: an import may take a second of a core's time, and the others go on serving.
LONGEST_LOAD_DELAY_S = 5.0


def is_wanted(restart: Restart, *, failed: bool) -> bool:
    """As in OTP: `permanent` is started again always, `transient` after a failure only, `temporary` never."""
    return restart == "permanent" or (restart == "transient" and failed)


def delay_s(earlier: int, draw: float, at_most_s: float = LONGEST_DELAY_S) -> float:
    """How many seconds after its end a child is started that was restarted `earlier` times already.

    At once for the first time, then after twice as long each time. `draw`, from 0 to 1, takes up to half of the delay
    away: children that died together come back apart.
    """
    if earlier == 0:
        return 0.0
    longest = min(at_most_s, FIRST_DELAY_S * 2.0 ** min(earlier - 1, 16))
    return longest * (1 - draw / 2)


@dataclass
class Allowance:
    """At most `intensity` restarts within `within_s` seconds. They count for all children together, and by name."""

    intensity: int = INTENSITY
    within_s: float = WITHIN_S
    _recent: deque[tuple[float, str]] = field(default_factory=deque)

    def admit(self, name: str, now_s: float) -> bool:
        """Counts one restart more and returns True; where there are as many as may be it counts none: False."""
        while self._recent and self._recent[0][0] <= now_s - self.within_s:
            self._recent.popleft()
        if len(self._recent) >= self.intensity:
            return False
        self._recent.append((now_s, name))
        return True

    def count(self, name: str | None = None) -> int:
        """The restarts of one child, or of all, in the window as it was at the last `admit`."""
        return sum(name in (None, each) for _, each in self._recent)

    def forgive(self, name: str) -> None:
        """Forgets the restarts of one child: they were wanted, or their cause is out of the way."""
        self._recent = deque(each for each in self._recent if each[1] != name)

    def clear(self) -> None:
        """Forgets all restarts."""
        self._recent.clear()
