"""Everything on: a graph with one actor under its supervisor, called by the client SDK."""

from __future__ import annotations

import os
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ...runtime.actor.actor import Actor
from ...runtime.launch.graph import Graph
from ...runtime.launch.running import Running, start
from ..harness.contestant import Payload, Seats, checksum


class Echo(Actor):
    """Answers with a checksum of what it gets."""

    def echo(self, payload: NDArray[np.uint8]) -> int:
        return checksum(payload)


class Graphed:
    """A contestant that is a running graph."""

    def __init__(self, graph: Graph) -> None:
        self.running: Running = start(graph.validate())
        try:
            self.client = self.running.client
        except BaseException:
            self.running.kill()
            raise

    def pids(self) -> list[int]:
        """Of the workers."""
        return [each["pid"] for each in self.running.status()["workers"]]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.running.stop()
        else:
            self.running.kill()


class GraphCall(Graphed):
    name = "client_call"
    title = "client.call"

    def __init__(self, seats: Seats, sizes: Sequence[int]) -> None:  # noqa: ARG002 - its slabs grow as they must
        graph = Graph(f"bench-call-{os.getpid()}")
        graph.expose(graph.add(Echo).echo)
        super().__init__(graph)
        (self.pid,) = self.pids()
        os.sched_setaffinity(self.pid, {seats.echo})

    def begin(self, nbytes: int, trips: int, *, spinning: bool) -> None:
        """Nothing: worker and client decide by themselves whether to spin."""

    def prepare(self, payload: Payload) -> Payload:
        return payload

    def trip(self, payload: Payload) -> int:
        return int(self.client.call("echo.echo", payload))
