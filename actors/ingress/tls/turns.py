"""How much of one kind is done in one turn of the loop, so that there is time for everything else."""

from __future__ import annotations

import asyncio


class Turns:
    """At most `most` times in a turn of the loop `take` says yes. Who hears no comes again in the next turn."""

    def __init__(self, loop: asyncio.AbstractEventLoop, most: int) -> None:
        self._loop = loop
        self._most = self._left = most

    def take(self) -> bool:
        """Whether it may be done in this turn."""
        if self._left == self._most:
            self._loop.call_soon(self._begin)  # which comes before what the next turn's selector sees
        elif not self._left:
            return False
        self._left -= 1
        return True

    def _begin(self) -> None:
        self._left = self._most
