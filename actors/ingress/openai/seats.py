"""How much of an actor's room the ingress takes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

# Of an actor's places, left to questions of how it fares. One that stood behind a request which waits for a place would
# wait with it.
_LEFT_FREE = 4


class Seats:
    """Asks each actor for no more answers at a time than it can begin; further requests wait here, in order.

    `places`: of each actor, by its name; of one that is not named nothing is known, and all go to it. So many
    `replicas` of the ingress share them. One event loop.
    """

    def __init__(self, places: Mapping[str, int], replicas: int = 1) -> None:
        self._places = {actor: max(1, (count - _LEFT_FREE) // replicas) for actor, count in places.items() if count}
        self._free = {actor: asyncio.Semaphore(count) for actor, count in self._places.items()}
        self._turn = {actor: asyncio.Lock() for actor in self._places}

    async def take(self, actor: str, wanted: int) -> int:
        """Waits for seats at an actor; no more than it has, if more are wanted. Gives how many `give_back` is to give
        back.
        """
        if actor not in self._places:
            return 0
        free, taken = self._free[actor], 0
        try:
            async with self._turn[actor]:  # two that have half of theirs would wait for each other
                for _ in range(min(wanted, self._places[actor])):
                    await free.acquire()
                    taken += 1
        except BaseException:
            self.give_back(actor, taken)
            raise
        return taken

    def give_back(self, actor: str, taken: int) -> None:
        """So many are free again."""
        for _ in range(taken):
            self._free[actor].release()
