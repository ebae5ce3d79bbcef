"""Actors that hand requests on, down to one that answers; each may be struck at a named point."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from points import Strikes
from slabwire import Actor, Graph, ReplyStream, Report, batched, private


class Noted(Actor):
    """Writes a line for each input that it begins."""

    def __init__(self, folder: str, strikes: str = "") -> None:
        self.folder = Path(folder)
        self.strikes = strikes

    def on_start(self) -> None:
        if self.strikes:
            Strikes(Path(self.strikes)).arm()

    @private
    def note(self, name: str, *what: Any) -> None:
        with (self.folder / name).open("a") as notes:
            notes.write(" ".join(map(str, what)) + "\n")


class Front(Noted):
    """The first hop: what it hands on has one more field than what it gets."""

    def plain(self, n: int, x: np.ndarray | None = None) -> Any:
        self.note("front", n, self.context.attempt)
        return self.delegate("middle.on", n=n, path=["front"], x=x)

    async def waits(self, n: int) -> Any:
        self.note("front", n, self.context.attempt)
        await asyncio.sleep(0)
        return self.delegate("middle.on", n=n, path=["front"])

    @batched(max_size=4)
    def batch(self, ns: list[int]) -> list[Any]:
        return [self.delegate("back.large", n=n) if n else "nothing" for n in ns]

    def straight(self, n: int) -> Any:
        self.note("front", n, self.context.attempt)
        return self.delegate("back.answer", n=n, path=["front"])

    def to_gate(self, n: int) -> Any:
        self.note("front", n)
        return self.delegate("back.gate", n=n)

    def to_death(self, n: int) -> Any:
        return self.delegate("back.die", n=n)

    def told(self, n: int, nbytes: int = 1000) -> Any:
        return self.delegate(
            "back.answer", n=n, path=[], report="answered", about={"n": n, "by": "front"}, report_nbytes=nbytes
        )

    def told_of(self, port: str, n: int) -> Any:
        return self.delegate(f"back.{port}", n=n, report="answered", about={"n": n, "by": "front"})

    def told_twice(self, n: int) -> Any:
        return self.delegate("middle.told", n=n, report="answered", about={"n": n, "by": "front"})

    def items(self, n: int, port: str = "batched", nbytes: int = 10_000) -> ReplyStream[int]:
        self.note("front", n, self.context.attempt)
        about = {"n": n, "by": "front"}
        onward: ReplyStream[int]
        onward = self.delegate(f"back.{port}", n=n, report="answered", about=about, report_nbytes=nbytes)
        return onward

    def torn(self, n: int) -> ReplyStream[int]:
        stream = self.reply_stream()
        stream.send(n)
        onward: ReplyStream[int] = self.delegate("back.batched", n=n)
        return onward

    def answered(self, about: dict[str, Any], report: Report) -> None:
        kept = report.value if report.items is None else report.items
        told = kept if report.kept else f"not kept {report.error}"
        self.note("reports", about["n"], about["by"], told)

    def loop(self, n: int = 0) -> Any:
        return n if n == -1 else self.delegate("middle.loop", n=n + 1)

    def some(self, left: int) -> Any:
        return self.delegate("front.some", left=left - 1) if left else "done"


class Middle(Noted):
    """The second hop."""

    def on(self, n: int, path: list[str], x: np.ndarray | None = None) -> Any:
        self.note("middle", n, self.context.attempt)
        return self.delegate("back.answer", n=n, path=[*path, "middle"], x=x)

    def told(self, n: int) -> Any:
        return self.delegate("back.answer", n=n, path=["middle"], report="answered", about={"n": n, "by": "middle"})

    def answered(self, about: dict[str, Any], report: dict[str, Any]) -> None:
        self.note("reports", about["n"], about["by"], report["value"])

    def loop(self, n: int) -> Any:
        return self.delegate("front.loop", n=n + 1)


class Back(Noted):
    """Answers."""

    def answer(self, n: int, path: list[str], x: np.ndarray | None = None) -> Any:
        self.note("back", n, self.context.attempt)
        given = {"n": n, "path": path, "trace": self.context.trace, "left": self.context.time_left_s()}
        return {**given, "key": self.context.idempotency_key, "sum": None if x is None else int(x.sum()), "x": x}

    async def gate(self, n: int) -> int:
        self.note("back", n, self.context.attempt)
        try:
            while not (self.folder / "gate").exists():
                await asyncio.sleep(0.005)
        except asyncio.CancelledError:
            self.note("cancelled", n)
            raise
        return n

    def die(self, n: int) -> int:
        self.note("back", n, self.context.attempt)
        if (self.folder / "dies").exists() or self.context.attempt == 1:
            os._exit(1)
        return n

    def batched(self, n: int) -> ReplyStream[int]:
        self.note("back", n, self.context.attempt)
        stream = self.reply_stream()
        task = asyncio.ensure_future(self._publish(stream, n))
        stream.add_done_callback(lambda _: task.cancel())
        return stream

    async def _publish(self, stream: ReplyStream[int], n: int) -> None:
        for each in range(n):
            await stream.wait_for_room()
            self.publish([(stream, each)])
        self.publish([], ended=[stream])

    async def endless(self, n: int) -> AsyncIterator[int]:
        try:
            while True:
                yield n
                await asyncio.sleep(0.002)
        finally:
            self.note("cancelled", n)

    def generated(self, n: int) -> Iterator[int]:
        yield from range(n)

    def fails(self, n: int) -> int:
        raise ValueError(f"{n} is wrong")

    def large(self, n: int) -> np.ndarray:
        return np.zeros(n, np.uint8)


class Asks(Actor):
    """A caller inside the graph."""

    async def ask(self, port: str, n: int) -> Any:
        return await self.call(port, n=n)


def chain(folder: Path, victim: str = "", change: Callable[[Graph], None] = lambda _: None, **settings: Any) -> Graph:
    """Front, middle and back, each in a worker of its own."""
    graph = Graph("chain")
    for code in (Front, Middle, Back):
        name = code.__name__.lower()
        strikes = str(folder / "strikes") if name == victim else ""
        actor = graph.add(code, folder=str(folder), strikes=strikes, **settings.get(name, {}))
        for port in code.__handlers__:
            graph.expose(getattr(actor, port))
    graph.expose(graph.add(Asks).ask)
    change(graph)
    return graph
