"""Calls of an actor that answers with what it got, so many at once: by tasks of one loop, or by threads."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import TracebackType

import numpy as np

from ...runtime.clients.async_client import AsyncClient
from ..harness.contestant import BenchError, Payload, Seats, checksum
from .graph_echo import GraphEcho

NBYTES = 2 << 10


def check(answer: Payload, payload: Payload) -> None:
    """Raises BenchError for an answer to something else."""
    if checksum(answer) != checksum(payload):
        raise BenchError(f"the answer to {checksum(payload)} is {checksum(answer)}")


def payloads(numbers: Iterator[int]) -> Iterator[Payload]:
    """One for each number, as one array that changes: for one caller, who waits for each answer."""
    payload = np.zeros(NBYTES, np.uint8)
    for number in numbers:
        payload[0], payload[-1] = number & 255, number >> 8 & 255
        yield payload


async def carried(ask: Callable[[Payload], Awaitable[Payload]], count: int, in_flight: int) -> None:
    """So many calls by so many tasks, each answer checked."""
    numbers = iter(range(count))

    async def call() -> None:
        for payload in payloads(numbers):
            check(await ask(payload), payload)

    await asyncio.gather(*(call() for _ in range(in_flight)))


class Awaited(GraphEcho):
    """One AsyncClient for all tasks."""

    name = "async_client"
    title = "AsyncClient.call"

    def __init__(self, seats: Seats) -> None:
        super().__init__(seats)
        self._runner = asyncio.Runner()
        self._client = self._runner.run(AsyncClient(self.running.name).open())

    def carry(self, count: int, in_flight: int) -> None:
        self._runner.run(carried(partial(self._client.call, "mirror.echo"), count, in_flight))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._runner.run(self._client.close())
        self._runner.close()
        super().__exit__(kind, error, trace)


class Threads(GraphEcho):
    """One Client for all threads, as many as there are calls in flight."""

    name = "client"
    title = "client.call, threads"

    def carry(self, count: int, in_flight: int) -> None:
        numbers = iter(range(count))

        def call() -> None:
            for payload in payloads(numbers):
                check(self.client.call("mirror.echo", payload), payload)

        with ThreadPoolExecutor(in_flight) as threads:
            for each in [threads.submit(call) for _ in range(in_flight)]:
                each.result()
