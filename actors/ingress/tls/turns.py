"""How much of one kind is done in one turn of the loop, so that there is time for everything else."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable


class Turns:
    """At most `most` times in a turn of the loop `take` says yes. Who hears no may `wait`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, most: int) -> None:
        self._loop = loop
        self._most = self._left = most
        self._waiting: deque[Callable[[], None]] = deque()

    def take(self) -> bool:
        """Whether it may be done in this turn."""
        if self._left == self._most:
            self._loop.call_soon(self._begin)  # which comes before what the next turn's selector sees
        elif not self._left:
            return False
        self._left -= 1
        return True

    def wait(self, step: Callable[[], None]) -> None:
        """After a no: has it done in a turn to come, in the order of asking. It cannot be taken back."""
        self._waiting.append(step)

    def _begin(self) -> None:
        self._left = self._most
        if not self._waiting:
            return
        self._loop.call_soon(self._begin)
        while self._waiting and self._left:
            self._left -= 1
            self._waiting.popleft()()
