"""Whether a process gets on, as its parent sees it."""

from __future__ import annotations

# How often a parent looks.
LOOK_EVERY_S = 1.0


class Heartbeat:
    """For how long no sign of life has come, as seen at looks. No I/O; time is an argument.

    Of the time between two looks no more than `longest_s` counts: while the parent itself was held up or stopped
    (and its children perhaps with it), it did not listen.
    """

    def __init__(self, now_s: float, longest_s: float = 2 * LOOK_EVERY_S) -> None:
        self.silent_s = 0.0
        self._longest_s = longest_s
        self._looked_s = now_s

    def look(self, now_s: float, *, heard: bool) -> float:
        """Notes whether signs have come since the look before; returns for how long there were none."""
        since_s = min(max(0.0, now_s - self._looked_s), self._longest_s)
        self.silent_s = 0.0 if heard else self.silent_s + since_s
        self._looked_s = now_s
        return self.silent_s
