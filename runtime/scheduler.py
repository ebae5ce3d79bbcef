"""The run queue of one core: which actor of a worker runs next. No I/O; time is an argument."""

from __future__ import annotations

from collections.abc import Iterable

# An actor with a message this near its deadline goes first.
NEAR_NS = 2_000_000


class RunQueue:
    """Weighted fair: each actor's time counts against its weight, and who has used least runs next.

    An actor that was idle does not save up: it joins at the level of those that ran meanwhile.
    """

    def __init__(self, weights: dict[str, int]) -> None:
        self._weights = dict(weights)
        self._used = dict.fromkeys(weights, 0.0)
        self._level = 0.0

    def pick(self, ready: Iterable[str], deadlines: dict[str, int], now_ns: int) -> str | None:
        """The name to run next among those that are ready. `deadlines` are in nanoseconds, where there are any."""
        candidates = list(ready)
        if not candidates:
            return None
        urgent = [name for name in candidates if 0 < deadlines.get(name, 0) <= now_ns + NEAR_NS]
        if urgent:
            return min(urgent, key=lambda name: deadlines[name])
        for name in candidates:
            self._used[name] = max(self._used[name], self._level)
        chosen = min(candidates, key=lambda name: self._used[name])
        self._level = self._used[chosen]
        return chosen

    def charge(self, name: str, nanoseconds: int) -> None:
        """Tells how long an actor has run."""
        self._used[name] += nanoseconds / self._weights[name]
