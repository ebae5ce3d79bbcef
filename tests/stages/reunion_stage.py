"""An actor that tells who it is and by which key it was asked."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from slabwire import Actor, Graph, batched


class Teller(Actor):
    """`folder` outlives the actor's processes."""

    def __init__(self, folder: str = "") -> None:
        self._folder = Path(folder)
        self._runs = 0

    def key(self) -> list[str | int | None]:
        return [self.context.idempotency_key, self.context.attempt]

    def plain(self, n: int, x: np.ndarray | None = None) -> list[int | str | None]:
        return [n, 0 if x is None else int(x.sum()), self.context.idempotency_key]

    async def coroutine(self, x: np.ndarray) -> str | None:
        await asyncio.sleep(0)
        return self.context.idempotency_key

    def keys(self, n: int) -> Iterator[str | None]:
        for _ in range(n):
            yield self.context.idempotency_key

    @batched(max_size=1)
    def batch(self, xs: list[np.ndarray]) -> list[str | None]:
        return [self.context.idempotency_key for _ in xs]

    def dies_once(self, x: np.ndarray) -> list[str | int | None]:
        self._die("plain")
        return [self.context.idempotency_key, self.context.attempt, int(x.sum())]

    async def dies_once_later(self, x: np.ndarray) -> list[str | int | None]:
        await asyncio.sleep(0)
        self._die("coroutine")
        return [self.context.idempotency_key, self.context.attempt, int(x.sum())]

    def _die(self, mark: str) -> None:
        try:
            (self._folder / mark).touch(exist_ok=False)
        except FileExistsError:
            return
        os.abort()

    def doubled(self, x: np.ndarray) -> np.ndarray:
        return 2 * x

    async def linger(self) -> int:
        """Ends when `end` is there."""
        (self._folder / "lingers").touch()
        while not (self._folder / "end").exists():
            await asyncio.sleep(0.002)
        return os.getpid()

    async def count(self, seconds: float) -> int:
        """How often it was run in this process."""
        self._runs += 1
        await asyncio.sleep(seconds)
        return self._runs

    def fails_first(self) -> int:
        self._runs += 1
        if self._runs == 1:
            raise ValueError("the first time")
        return self._runs


class Gate(Actor):
    def enter(self, n: int) -> int:
        return n


class Narrow(Actor):
    """Takes one after the other, and some time for each."""

    def take(self, n: int) -> int:
        time.sleep(0.005)
        return n


def teller_graph(name: str, folder: Path) -> Graph:
    graph = Graph(name)
    teller = graph.add(Teller, folder=str(folder))
    gate, narrow = graph.add(Gate), graph.add(Narrow)
    graph.connect(gate.enter, narrow.take, capacity=2, when_full="reject")
    graph.expose(gate.enter, *(getattr(teller, port) for port in Teller.__handlers__))
    return graph
