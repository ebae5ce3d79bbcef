"""Which of many lines a log gets: clients decide how many there could be, and a log has an end."""

from __future__ import annotations

from collections.abc import Callable

# When all is well a line now and then shows how it is.
_EVERY_S = 10.0
# What goes wrong is logged as long as it is no flood: what clients do, and what we do.
OF_CLIENTS_A_SECOND, OF_OURS_A_SECOND = 10, 100


class Sampling:
    """Says of each line whether it is written, and what was left out before it.

    `clock` gives seconds. `troubles` are written in a second at most.
    """

    def __init__(self, clock: Callable[[], float], troubles: int = OF_CLIENTS_A_SECOND) -> None:
        self._clock = clock
        self._most = troubles
        self._well_at = self._second = float("-inf")
        self._in_second = 0
        self._left_out = 0  # of what went well
        self._dropped = 0  # of what did not

    def well(self) -> str | None:
        """None: not this one. Else what to put at the line's end."""
        now = self._clock()
        if now - self._well_at < _EVERY_S:
            self._left_out += 1
            return None
        self._well_at = now
        told, self._left_out = self._left_out, 0
        return f" unlogged_before={told}" if told else ""

    def troubled(self) -> str | None:
        """As `well`, of what went wrong."""
        now = self._clock()
        if now - self._second >= 1.0:
            self._second, self._in_second = now, 0
        self._in_second += 1
        if self._in_second > self._most:
            self._dropped += 1
            return None
        told, self._dropped = self._dropped, 0
        return f" unlogged_before={told}" if told else ""
