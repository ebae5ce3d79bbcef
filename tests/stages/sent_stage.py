"""Actors with handlers that read streams which their callers send."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

import slabwire
from slabwire import Actor, Graph


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

    async def probes(self, items: AsyncGenerator[int, None]) -> list[Any]:
        first = await anext(items)
        both = await asyncio.gather(anext(items), anext(items), return_exceptions=True)
        await items.aclose()
        return [first, *(str(each) for each in both), [each async for each in items]]

    def over(self) -> list[str]:
        return self.ended

    def forget(self) -> None:
        self.ended.clear()

    def twice(self, n: int) -> int:
        return 2 * n


def arrays(nbytes: int, n: int) -> Iterator[Any]:
    for each in range(n):
        yield np.full(nbytes // 8, each)


class Asker(Actor):
    async def ask(self, n: int) -> int:
        async def numbers() -> AsyncIterator[int]:
            for each in range(n):
                await asyncio.sleep(0)
                yield each

        total: int = await self.call("adder.sum", numbers(), scale=2)
        total += await self.call("adder.sum", range(n))
        echoed = [each async for each in self.stream("adder.each", iter(range(n)))]
        return total + int(sum(echoed))

    async def large(self, nbytes: int, n: int) -> int:
        return int(await self.call("adder.sizes", arrays(nbytes, n)))

    async def passes_on(self, numbers: AsyncIterator[int]) -> int:
        return int(await self.call("adder.sum", numbers))


def graph_of_streams() -> Graph:
    graph = Graph("sent")
    adder, asker = graph.add(Adder), graph.add(Asker, memory_bytes=8 << 20)
    ports = (
        "sum",
        "each",
        "first",
        "never_reads",
        "reads_for_ever",
        "points",
        "caught",
        "sizes",
        "over",
        "forget",
        "twice",
        "probes",
    )
    graph.expose(*(getattr(adder, each) for each in ports), asker.ask, asker.passes_on, asker.large)
    return graph
