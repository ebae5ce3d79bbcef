"""How much memory requests, and items that wait for their readers, may take in a gateway."""

from __future__ import annotations

from ..errors import Overloaded, mark_not_begun

# Of all requests that the graph has not answered yet, whoever sent them.
MOST_REQUESTS_NBYTES = 1 << 30
# Of all items that wait for credit of their streams, arrays not counted: these stay where their actors have put them.
MOST_HELD_NBYTES = 1 << 30


class Budget:
    """Bytes that requests in flight, say, may take in a gateway, or those of one client of it (`whose`): then they
    count `within` another as well.
    """

    def __init__(
        self, limit_nbytes: int = MOST_REQUESTS_NBYTES, *, whose: str = "", within: Budget | None = None
    ) -> None:
        self.limit_nbytes = limit_nbytes
        self.used_nbytes = 0
        self._whose = whose
        self._within = within

    def has_room(self, nbytes: int) -> bool:
        fits = self.used_nbytes + nbytes <= self.limit_nbytes
        return fits and (self._within is None or self._within.has_room(nbytes))

    def take(self, nbytes: int) -> None:
        """Raises Overloaded where it is exhausted."""
        if self.used_nbytes + nbytes > self.limit_nbytes:
            text = f"requests{self._whose} of {self.used_nbytes} bytes wait at this gateway already; try again later"
            raise mark_not_begun(Overloaded(text))
        if self._within is not None:
            self._within.take(nbytes)
        self.used_nbytes += nbytes

    def give_back(self, nbytes: int) -> None:
        self.used_nbytes -= nbytes
        if self._within is not None:
            self._within.give_back(nbytes)
