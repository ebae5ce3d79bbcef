"""Places for calls in flight: so many may be taken at once, and who waits for one gets it in order."""

from __future__ import annotations

import asyncio
from collections import deque


class Places:
    """Of one loop: `most` in all. One thread. `asyncio.Semaphore` takes several times as long where nobody waits."""

    def __init__(self, most: int) -> None:
        self.most = self._free = most
        self._waiting: deque[asyncio.Future[None]] = deque()

    def try_take(self) -> bool:
        """Takes a place, if one is free, which it is not while others wait; says whether."""
        if self._free:
            self._free -= 1
            return True
        return False

    async def take(self) -> None:
        """Waits for a place."""
        if self.try_take():
            return
        given = asyncio.get_running_loop().create_future()
        self._waiting.append(given)
        try:
            await given
        except BaseException:
            if given.done() and not given.cancelled():  # it was given while its task was being cancelled
                self.give_back()
            raise

    def give_back(self) -> None:
        """Passes a place on to whoever has waited longest."""
        while self._waiting:
            given = self._waiting.popleft()
            if not given.done():
                given.set_result(None)
                return
        self._free += 1
