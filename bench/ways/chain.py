"""A chain of three actors: one that keeps payloads and sends them on, one that passes on, one that looks."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...runtime.actor.actor import Actor
from ...runtime.launch.graph import Graph
from ..harness.contestant import Payload, Seats, checksum
from .graph import Graphed


class Keeper(Actor):
    """Keeps what it was given, and sends that on when asked."""

    def __init__(self) -> None:
        self.kept: NDArray[np.uint8] | None = None

    def hold(self, payload: NDArray[np.uint8]) -> int:
        self.kept = payload
        return payload.nbytes

    def again(self, _trip: int) -> NDArray[np.uint8]:
        if self.kept is None:
            raise ValueError("nothing was kept")
        return self.kept


class PassOn(Actor):
    """Passes on what it got, by reference or as a copy."""

    def __init__(self, copies: bool = False) -> None:
        self.copies = copies

    def take(self, payload: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return payload.copy() if self.copies else payload


class Look(Actor):
    """The end of the chain: answers with a checksum."""

    def take(self, payload: NDArray[np.uint8]) -> int:
        return checksum(payload)


class Forwarded(Graphed):
    name = "forwarded"
    title = "forwarded by reference"
    copies = False

    def __init__(self, seats: Seats, sizes: Sequence[int]) -> None:  # noqa: ARG002 - the planner seats them
        graph = Graph(f"bench-{self.name}-{os.getpid()}")
        keeper = graph.add(Keeper, worker="keeper")
        middle = graph.add(PassOn, name="middle", worker="middle", copies=self.copies)
        look = graph.add(Look, worker="look")
        graph.connect(keeper.again, middle.take)
        graph.connect(middle.take, look.take)
        graph.expose(keeper.hold, keeper.again)
        super().__init__(graph)
        self.pid = self.pids()[0]
        self._trip = 0

    def begin(self, nbytes: int, trips: int, *, spinning: bool) -> None:
        """Nothing: workers decide by themselves whether to spin."""

    def prepare(self, payload: Payload) -> Payload:
        """The keeper gets it before the clock runs."""
        self.client.call("keeper.hold", payload)
        return payload

    def trip(self, payload: Payload) -> int:  # noqa: ARG002 - it is there already
        self._trip += 1
        return int(self.client.call("keeper.again", self._trip))


class Copied(Forwarded):
    name = "copied"
    title = "copied on the way"
    copies = True
