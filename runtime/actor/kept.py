"""Memory that an actor keeps beyond its own death: what `Actor.keep` gives."""

from __future__ import annotations

from dataclasses import dataclass

from ...shm.layout import Placed


@dataclass(frozen=True, slots=True)
class Kept:
    """The supervisor holds it for all replicas of an actor and for their successors, and knows nothing about it. Other
    actors may read it.

    `words` are its aligned 8-byte words, `bytes` is all of it; where each word of the layout lies is in `placed`.
    `replica` is the number of this replica, 0 without others. Memory that nobody has written is zero.
    """

    words: memoryview
    bytes: memoryview
    placed: Placed
    replica: int
