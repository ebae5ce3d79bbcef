"""Everything on: a graph with one actor under its supervisor, called by the client SDK."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ..runtime.actor import Actor
from ..runtime.graph import Graph
from ..runtime.running import start
from .contestant import Mode, Payload, Seats, checksum


class Echo(Actor):
    """Answers with a checksum of what it gets."""

    def echo(self, payload: NDArray[np.uint8]) -> int:
        return checksum(payload)


class GraphCall:
    name = "graph_call"
    title = "client.call"
    modes: tuple[Mode, ...] = (Mode.HOT, Mode.PARKED)

    def __init__(self, seats: Seats, sizes: Iterable[int]) -> None:  # noqa: ARG002 - its slabs grow as they must
        graph = Graph(f"bench-hop-{os.getpid()}")
        graph.expose(graph.add(Echo).echo)
        self._running = start(graph.validate())
        try:
            self._client = self._running.client
            (worker,) = self._running.status()["workers"]
            self.pid: int = worker["pid"]
            os.sched_setaffinity(self.pid, {seats.echo})
        except BaseException:
            self._running.kill()
            raise

    def begin(self, mode: Mode, nbytes: int, trips: int) -> None:
        """Nothing: worker and client decide by themselves whether to spin."""

    def trip(self, payload: Payload) -> int:
        return int(self._client.call("echo.echo", payload))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *others: Any) -> None:
        if kind is None:
            self._running.stop()
        else:
            self._running.kill()
