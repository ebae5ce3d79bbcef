"""A graph whose calls are answered at once and go on along a side branch, which waits at a gate; and a client of it.

As a program: makes calls that are answered and some that never are, says so, and stays until it is ended.
"""

from __future__ import annotations

import asyncio
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import slabwire
from slabwire import Actor, Graph, Output, batched

PORTS = ("take", "waits", "batch", "items", "early", "quiet")
ITEMS = 3
# In the record, and beside it in a block.
SIZES = (8, 5000)


def letter(n: int) -> dict[str, Any]:
    return {"n": n, "x": np.random.default_rng(abs(n)).integers(0, 256, SIZES[n % len(SIZES)], np.uint8)}


class Front(Actor):
    """Hands on what it gets by handlers of all kinds: the block is the caller's own."""

    soon = Output(dict)
    later = Output(dict)

    def take(self, n: int, x: np.ndarray) -> dict[str, Any]:
        return {"n": n, "x": x}

    async def waits(self, n: int, x: np.ndarray) -> dict[str, Any]:
        await asyncio.sleep(0)
        return {"n": n, "x": x}

    @batched(max_size=4, max_wait_s=0.001)
    def batch(self, letters: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return letters

    def items(self, n: int, x: np.ndarray) -> Iterator[dict[str, Any]]:
        for number in range(ITEMS):
            yield {"n": n + number, "x": letter(n + number)["x"] if number else x}

    async def early(self, n: int, x: np.ndarray) -> None:
        """Is answered before it is done."""
        self.emit("soon", {"n": n, "x": x})
        await asyncio.sleep(0.05)
        self.emit("later", {"n": n, "x": x})

    def quiet(self, n: int, x: np.ndarray) -> dict[str, Any] | None:
        """Is answered by None, by whoever is next."""
        return {"n": n, "x": x}


class Answers(Actor):
    """Answers at once, but for negative numbers: never."""

    async def give(self, n: int, x: np.ndarray) -> int:
        if n < 0:
            await asyncio.Event().wait()
        return n

    def nothing(self, n: int, x: np.ndarray) -> None:
        return None


class Sides(Actor):
    """One at a time, while the gate is open; says whether what came is whole."""

    def __init__(self, gate: str, pause_s: float = 0.0) -> None:
        self._gate, self._pause_s = Path(gate), pause_s

    async def note(self, n: int, x: np.ndarray) -> dict[str, Any]:
        await asyncio.sleep(self._pause_s)
        while not self._gate.exists():
            await asyncio.sleep(0.002)
        return {"n": n, "check": zlib.crc32(x.tobytes())}


class Deep(Actor):
    """The second hop of the side branch: writes down what comes."""

    def __init__(self, path: str) -> None:
        self._path = path

    def write(self, n: int, check: int) -> None:
        with open(self._path, "ab", buffering=0) as file:
            file.write(b"%d %d\n" % (n, check))


class Asks(Actor):
    """Calls for others; once it has an answer it does nothing more, and its caller waits."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)

    async def ask(self, n: int) -> None:
        again = self.context.attempt > 1
        if not again:
            await self.call("front.take", **letter(n))
            (self._folder / f"asked{n}").touch()
        await asyncio.Event().wait()


def side_graph(folder: Path, *, capacity: int = 64, when_full: Any = "block", pause_s: float = 0.0) -> Graph:
    graph = Graph("sides")
    front, answers, asks = graph.add(Front), graph.add(Answers), graph.add(Asks, folder=str(folder))
    sides = graph.add(Sides, gate=str(folder / "gate"), pause_s=pause_s, concurrency=1, max_attempts=20)
    deep = graph.add(Deep, path=str(folder / "seen"))
    ports = (front.take, front.waits, front.batch, front.items, front.soon)
    for port in ports:
        graph.connect(port, answers.give)
    graph.connect(front.quiet, answers.nothing)
    for port in (*ports[:4], front.quiet, front.later):
        graph.connect(port, sides.note, capacity=capacity, when_full=when_full)
    graph.connect(sides.note, deep.write)
    graph.expose(front.take, front.waits, front.batch, front.items, front.early, reply=answers.give)
    graph.expose(front.quiet, reply=answers.nothing)
    graph.expose(asks.ask)
    return graph


def seen(folder: Path) -> list[int]:
    """The numbers that came to the end of the side branch, sorted; each was whole."""
    path = folder / "seen"
    lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
    assert all(int(check) == zlib.crc32(letter(int(n))["x"].tobytes()) for n, check in lines)
    return sorted(int(n) for n, _ in lines)


async def ask(client: Any, port: str, n: int) -> None:
    """One call of any port, with its answer."""
    fields = letter(n)
    if port == "items":
        assert [each async for each in client.stream("front.items", **fields)] == [n, n + 1, n + 2]
    else:
        given = {"letters": fields} if port == "batch" else fields
        assert await client.call(f"front.{port}", **given) == (None if port == "quiet" else n)


def expected(first: int) -> list[int]:
    """What the answered calls of one client set going."""
    own = [first + 10 * place for place in range(len(PORTS))]
    return sorted([*own, *(own[PORTS.index("items")] + number for number in range(1, ITEMS))])


async def talk(where: str, first: int) -> None:
    """Some calls that nobody answers, then one of each port that is answered; returns with the former in flight."""
    async with slabwire.connect_async(where) as client:
        unanswered = [asyncio.create_task(client.call("front.take", **letter(-first - each))) for each in range(3)]
        await asyncio.sleep(0)
        for place, port in enumerate(PORTS):
            await ask(client, port, first + 10 * place)
        if __name__ == "__main__":
            print("answered", flush=True)
            await asyncio.Event().wait()
    await asyncio.gather(*unanswered, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(talk(sys.argv[1], int(sys.argv[2])))
