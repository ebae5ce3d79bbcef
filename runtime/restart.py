"""When and how soon a dead worker is started again. No I/O; time is an argument."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from .spec import Restart

FIRST_DELAY_S = 0.05
LONGEST_DELAY_S = 1.0


@dataclass
class RestartPolicy:
    """As in OTP: `permanent` always, `transient` after a failure only, `temporary` never.

    More than `intensity` restarts within `window_s` are too many: then the graph gives up. The first restart is
    immediate, the delay then doubles with each one within the window.
    """

    restart: Restart = "permanent"
    intensity: int = 10
    window_s: float = 30.0
    _recent: deque[float] = field(default_factory=deque)

    def after_exit(self, *, failed: bool, now_s: float) -> float | None:
        """Seconds to wait before the restart, or None if there is none: see `gave_up` for why."""
        if self.restart == "temporary" or (self.restart == "transient" and not failed):
            return None
        while self._recent and self._recent[0] <= now_s - self.window_s:
            self._recent.popleft()
        if len(self._recent) >= self.intensity:
            return None
        self._recent.append(now_s)
        earlier = len(self._recent) - 1
        return 0.0 if earlier == 0 else min(LONGEST_DELAY_S, FIRST_DELAY_S * 2 ** (earlier - 1))

    def forgive(self) -> None:
        """Forgets earlier restarts: this one is wanted."""
        self._recent.clear()

    @property
    def gave_up(self) -> bool:
        """Whether the last answer was no because there were too many restarts."""
        return len(self._recent) >= self.intensity
