"""Actors of every kind that say which process answered, whether what they got was whole, and by which key."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kill_stage import checksum, letter
from slabwire import Actor, Graph, batched, resumable

Letter = dict[str, Any]
# What one death may cost is what is measured here, not how many of them a message or a graph bears.
ATTEMPTS, DEATHS = 20, 10_000


class Hop(Actor):
    """Hands letters on, every second one in a block of its own."""

    def _on(self, n: int, check: int, x: NDArray[Any], pids: list[int] | None = None) -> Letter:
        whole = checksum(n, x) == check
        if n % 2:
            own = self.loan(x.shape, x.dtype)
            own[...] = x
            x = own
        return {"n": n, "check": check if whole else -1, "x": x, "pids": [*(pids or []), os.getpid()]}


class Plain(Hop):
    def take(self, n: int, check: int, x: np.ndarray) -> Letter:
        return {**self._on(n, check, x), "key": self.context.idempotency_key}


class Waits(Hop):
    async def take(self, n: int, check: int, x: np.ndarray) -> Letter:
        key = self.context.idempotency_key
        plain = await self.call("plain.take", n, check, x)
        return {**plain, "key": key, "pids": [*plain["pids"], os.getpid()]}


class Batches(Hop):
    @batched(max_size=8, max_wait_s=0.002)
    def take(self, letters: list[Letter]) -> list[Letter]:
        return [self._on(**each) for each in letters]


class Streams(Hop):
    def once(self, first: int, n: int) -> Iterator[Letter]:
        for number in range(first, first + n):
            yield self._on(**letter(number))

    @resumable
    def again(self, first: int, n: int, sent: int = 0) -> Iterator[Letter]:
        for number in range(first + sent, first + n):
            yield self._on(**letter(number))


class Make(Hop):
    def take(self, n: int) -> Letter:
        return {**self._on(**letter(n)), "pids": [os.getpid()]}


class Middle(Hop):
    def on(self, n: int, check: int, x: np.ndarray, pids: list[int]) -> Letter:
        return self._on(n, check, x, pids)


class Last(Middle):
    """The end of the chain."""


class Back(Actor):
    """Where the answer and the side branch have parted: what comes here goes back."""

    def on(self, letter: Letter) -> Letter:
        return letter


class Side(Actor):
    """The first hop of the side branch: hands on what it found."""

    async def note(self, letter: Letter) -> dict[str, Any]:
        await asyncio.sleep(0)
        return {"n": letter["n"], "whole": checksum(letter["n"], letter["x"]) == letter["check"]}


class Deep(Actor):
    """The end of the side branch: writes down number, whether it was whole, attempt."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def write(self, n: int, whole: bool) -> None:
        os.write(self._file, b"%d %d %d\n" % (n, whole, self.context.attempt))


def storm_graph(sides: Path | None = None) -> Graph:
    """With `sides` all answers go along a side branch, too, whose end writes into that file."""
    graph = Graph("storm")
    options: dict[str, Any] = {"max_attempts": ATTEMPTS}
    plain, waits, batches, streams, make, middle, last = (
        graph.add(each, **options) for each in (Plain, Waits, Batches, Streams, Make, Middle, Last)
    )
    graph.connect(make.take, middle.on, capacity=16)
    graph.connect(middle.on, last.on, capacity=16)
    nodes = [plain, waits, batches, streams, make, middle, last]
    ports = (plain.take, waits.take, batches.take, streams.once, streams.again, make.take)
    if sides is None:
        graph.expose(*ports)
    else:
        back, side, deep = (
            graph.add(Back, **options),
            graph.add(Side, **options),
            graph.add(Deep, path=str(sides), **options),
        )
        nodes += [back, side, deep]
        for end in (plain.take, batches.take, streams.once, streams.again, last.on):
            graph.connect(end, back.on)
            graph.connect(end, side.note, capacity=16)
        graph.connect(side.note, deep.write)
        graph.expose(waits.take)
        graph.expose(plain.take, batches.take, streams.once, streams.again, make.take, reply=back.on)
    graph.supervise("all", nodes, intensity=DEATHS, within_s=5.0)
    return graph
