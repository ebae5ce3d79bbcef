"""Streams that callers send: in processes and in one process, read by handlers as they come."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import slabwire
from slabwire import Actor, Graph
from waiting import wait_until


@dataclass
class Point:
    x: int
    y: int = 2


class Adder(Actor):
    def __init__(self) -> None:
        self.kept: list[Any] = []
        self.ended: list[str] = []

    async def sum(self, numbers: AsyncIterator[int], scale: int = 1) -> int:
        total = 0
        async for each in numbers:
            total += each
        return total * scale

    async def each(self, items: AsyncGenerator[Any, None]) -> AsyncIterator[Any]:
        async for each in items:
            yield each

    async def first(self, items: AsyncIterable[Any], n: int = 1) -> list[Any]:
        got = []
        if n:
            async for each in items:
                got.append(each)
                if len(got) == n:
                    break
        return got

    async def never_reads(self, items: AsyncIterator[Any], mark: str = "") -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            self.ended.append(mark)

    async def reads_for_ever(self, items: AsyncIterator[Any], mark: str = "") -> int:
        n = 0
        try:
            async for _ in items:
                n += 1
            await asyncio.sleep(3600)
        finally:
            self.ended.append(mark)
        return n

    async def points(self, points: AsyncIterator[Point]) -> int:
        total = 0
        async for each in points:
            assert isinstance(each, Point)
            total += each.x + each.y
        return total

    async def caught(self, items: AsyncIterator[int]) -> str:
        try:
            async for _ in items:
                pass
        except slabwire.SlabwireError as error:
            self.ended.append(f"{type(error).__name__}: {error}")
        return "caught"

    async def sizes(self, arrays: AsyncIterator[Any]) -> int:
        total = 0
        async for each in arrays:
            total += int(each[0]) + each.nbytes
        return total

    def over(self) -> list[str]:
        return self.ended

    def twice(self, n: int) -> int:
        return 2 * n


class Asker(Actor):
    async def ask(self, n: int) -> int:
        async def numbers() -> AsyncIterator[int]:
            for each in range(n):
                await asyncio.sleep(0)
                yield each

        total: int = await self.call("adder.sum", numbers(), scale=2)
        total += await self.call("adder.sum", range(n))
        return total + sum([each async for each in self.stream("adder.each", iter(range(n)))])

    async def passes_on(self, numbers: AsyncIterator[int]) -> int:
        return int(await self.call("adder.sum", numbers))


def graph_of_streams() -> Graph:
    graph = Graph("sent")
    adder, asker = graph.add(Adder), graph.add(Asker)
    ports = ("sum", "each", "first", "never_reads", "reads_for_ever", "points", "caught", "sizes", "over", "twice")
    graph.expose(*(getattr(adder, each) for each in ports), asker.ask, asker.passes_on)
    return graph


Act = Callable[[slabwire.AsyncClient], Any]


@pytest.fixture(params=[False, True], ids=["processes", "one process"])
def within(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Act], Any]:
    """Runs something with a client of the graph, in both forms."""
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(tmp_path))

    def run(act: Act) -> Any:
        async def main() -> Any:
            async with (
                graph_of_streams().run(in_process=request.param, drain_timeout_s=0.1) as running,
                slabwire.connect_async(running.name) as client,
            ):
                return await act(client)

        return asyncio.run(main())

    return run


def test_a_handler_reads_what_its_caller_sends(within: Callable[[Act], Any]) -> None:
    async def act(client: slabwire.AsyncClient) -> Any:
        async def numbers() -> AsyncIterator[int]:
            for each in range(10_000):
                yield each

        return [
            await client.call("adder.sum", range(10_000)),
            await client.call("adder.sum", numbers(), scale=2),
            await client.call("adder.sum", []),
            await client.call("adder.points", [Point(1), Point(2, 3)]),
            [each async for each in client.stream("adder.each", (n for n in range(1000)))],
            await client.call("asker.ask", 500),
            await client.call("asker.passes_on", range(1000)),
        ]

    total = sum(range(10_000))
    assert within(act) == [total, 2 * total, 0, 8, list(range(1000)), 4 * sum(range(500)), sum(range(1000))]
