"""Two actors that compute, one behind the other: on two cores, on one, not pinned, and in one worker."""

from __future__ import annotations

import asyncio
import os
import zlib
from collections.abc import Callable
from functools import cache
from time import perf_counter_ns
from types import TracebackType
from typing import Any, Self

import numpy as np

from ...runtime.actor.actor import Actor
from ...runtime.clients.async_client import AsyncClient
from ...runtime.clients.control import Control
from ...runtime.control.verbs import Move
from ...runtime.host.affinity import repin
from ...runtime.host.topology import Topology
from ...runtime.launch.graph import Graph
from ...runtime.launch.running import Running, start
from ..harness.contestant import BenchError

_BLOCK = np.arange(40_000, dtype=np.int64).tobytes()
# That often over it takes some 400 µs: more than a message costs, less than a time slice.
_PASSES = 4


def computed(number: int) -> int:
    """What a stage makes of a number."""
    for _ in range(_PASSES):
        number = zlib.crc32(_BLOCK, number)
    return number


# So few different questions, that all answers are known before the clock runs: who checks must not compute as long.
_QUESTIONS = 16


@cache
def _answer(number: int) -> int:
    return computed(computed(number))


class Stage(Actor):
    """Computes for some 400 µs."""

    def work(self, number: int) -> int:
        return computed(number)


class Crowd:
    """A contestant that is a running graph, called by a coroutine client: `call` for each of so many in flight."""

    name = ""
    title = ""

    def __init__(self, graph: Graph) -> None:
        self.running: Running = start(graph.validate())
        self._runner = asyncio.Runner()
        try:
            self.settle()
            self._client: AsyncClient = self._runner.run(AsyncClient(self.running.name).open())
        except BaseException:
            self.running.kill()
            raise

    def settle(self) -> None:
        """Puts its workers where they shall be, unless that is where the plan has put them."""

    async def call(self, client: AsyncClient, number: int) -> None:
        """One call, whose answer is checked. Raises BenchError."""
        raise NotImplementedError

    def carry(self, count: int, in_flight: int) -> tuple[float, list[float]]:
        """So many calls: microseconds in all, and of each."""
        return self._runner.run(self._carry(count, in_flight))

    async def _carry(self, count: int, in_flight: int) -> tuple[float, list[float]]:
        numbers, took = iter(range(count)), list[float]()

        async def ask() -> None:
            for number in numbers:
                began = perf_counter_ns()
                await self.call(self._client, number)
                took.append((perf_counter_ns() - began) / 1e3)

        began = perf_counter_ns()
        await asyncio.gather(*(ask() for _ in range(in_flight)))
        return (perf_counter_ns() - began) / 1e3, took

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._runner.run(self._client.close())
        self._runner.close()
        if kind is None:
            self.running.stop()
        else:
            self.running.kill()


class _Stages(Crowd):
    worker: str | None = None

    def __init__(self) -> None:
        graph = Graph(f"bench-{self.name.replace('_', '-')}-{os.getpid()}")
        first = graph.add(Stage, name="first", worker=self.worker)
        second = graph.add(Stage, name="second", worker=self.worker)
        graph.connect(first.work, second.work)
        graph.expose(first.work)
        for number in range(_QUESTIONS):
            _answer(number)
        super().__init__(graph)

    async def call(self, client: AsyncClient, number: int) -> None:
        number %= _QUESTIONS
        if await client.call("first.work", number) != _answer(number):
            raise BenchError(f"{self.title}: a wrong answer to {number}")


class OnTwoCores(_Stages):
    """As the plan has it."""

    name = "two_cores"
    title = "a core each"


class OnOneCore(_Stages):
    """Both moved to one CPU."""

    name = "one_core"
    title = "both on one core"

    def settle(self) -> None:
        cpu = str(Topology.read().cores[0].cpus[0])
        with Control(self.running.name) as control:
            for actor in ("first", "second"):
                control.request(Move(actor, cpu))


class NotPinned(_Stages):
    """Wherever the kernel puts them; both may spin, as they may on cores of their own."""

    name = "not_pinned"
    title = "not pinned"

    def settle(self) -> None:
        for worker in self.running.status()["workers"]:
            repin(worker["pid"], Topology.read().cpus)


class InOneWorker(_Stages):
    """One process, so one core."""

    name = "one_worker"
    title = "both in one worker"
    worker = "both"


STAGES: tuple[Callable[[], Any], ...] = (OnTwoCores, OnOneCore, NotPinned, InOneWorker)
