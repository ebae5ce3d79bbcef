"""How much memory requests may take in a gateway."""

from __future__ import annotations

from .errors import Overloaded, untouched

# Of all requests that the graph has not answered yet, whoever sent them.
MOST_REQUESTS_NBYTES = 1 << 30


class Budget:
    """Bytes of requests that may be in flight in a gateway."""

    def __init__(self, limit_nbytes: int = MOST_REQUESTS_NBYTES) -> None:
        self.limit_nbytes = limit_nbytes
        self.used_nbytes = 0

    def take(self, nbytes: int) -> None:
        """Raises Overloaded where it is exhausted."""
        if self.used_nbytes + nbytes > self.limit_nbytes:
            text = f"requests of {self.used_nbytes} bytes wait at this gateway already; try again later"
            raise untouched(Overloaded(text))
        self.used_nbytes += nbytes

    def give_back(self, nbytes: int) -> None:
        self.used_nbytes -= nbytes
