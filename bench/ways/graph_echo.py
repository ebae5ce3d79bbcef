"""A graph whose one actor answers with what it got, called by the client SDK."""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from ...runtime.actor.actor import Actor
from ...runtime.launch.graph import Graph
from ..harness.contestant import Payload, Seats, checksum
from .graph import Graphed


class Mirror(Actor):
    """Answers with what it gets."""

    def echo(self, payload: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return payload


class GraphEcho(Graphed):
    name = "client_call"
    title = "client.call"

    def __init__(self, seats: Seats) -> None:
        graph = Graph(f"bench-{self.name.replace('_', '-')}-{os.getpid()}")
        graph.expose(graph.add(Mirror).echo)
        super().__init__(graph)
        (self.pid,) = self.pids()
        os.sched_setaffinity(self.pid, {seats.echo})

    def begin(self, nbytes: int, trips: int, *, spinning: bool) -> None:
        """Nothing: worker and client decide by themselves whether to spin."""

    def prepare(self, payload: Payload) -> Payload:
        return payload

    def trip(self, payload: Payload) -> int:
        return checksum(self.client.call("mirror.echo", payload))
