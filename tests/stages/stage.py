"""Actors that tests put on stage: each does one thing that a test wants to see."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

import slabwire
from slabwire import Actor, Output


@dataclass
class Point:
    x: float
    y: float


class Echo(Actor):
    """Gives back what it gets, in several manners."""

    def echo(self, x: Any) -> Any:
        return x

    def double(self, x: np.ndarray) -> np.ndarray:
        doubled = self.loan(x.shape, x.dtype)
        np.multiply(x, 2, out=doubled)
        return doubled

    def pair(self, x: float, y: float = 1.0) -> dict[str, float]:
        return {"x": x, "y": y}

    def norm(self, point: Point) -> float:
        return math.hypot(point.x, point.y)

    def grey(self, image: Float32[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w"]:
        grey: np.ndarray = image.mean(axis=2, dtype=np.float32)
        return grey

    def nothing(self) -> None:
        return None

    def fail(self, text: str) -> None:
        raise ValueError(text)

    def unsendable(self) -> Any:
        return {"inner": [1, object()]}

    def who(self) -> tuple[str, int]:
        return self.context.actor, os.getpid()

    def attempt(self) -> int:
        return self.context.attempt

    def time_left(self) -> float | None:
        return self.context.time_left_s()


class Streams(Actor):
    """Streams of each kind."""

    def upto(self, n: int) -> Iterator[int]:
        yield from range(n)

    def frames(self, n: int, nbytes: int) -> Iterator[np.ndarray]:
        for i in range(n):
            frame = self.loan(nbytes, np.uint8)
            frame[:] = i % 251
            yield frame

    async def ticks(self, n: int) -> AsyncIterator[int]:
        for i in range(n):
            await asyncio.sleep(0)
            yield i

    def breaks(self, n: int) -> Iterator[int]:
        yield from range(n)
        raise RuntimeError("broke off")

    def forever(self, mark: str) -> Iterator[int]:
        """Writes `mark` when it is closed."""
        i = 0
        try:
            while True:
                yield i
                i += 1
        finally:
            Path(mark).write_text(str(i))


class Relays(Actor):
    """Hands the items of another stream on, a few at a time."""

    async def forever(self, mark: str) -> AsyncIterator[int]:
        async for i in self.stream("streams.forever", mark):
            yield i


class Waits(Actor):
    """Coroutines."""

    async def sleep(self, seconds: float) -> float:
        await asyncio.sleep(seconds)
        return seconds

    async def many(self, n: int) -> list[int]:
        return list(await asyncio.gather(*(self.call("echo.echo", i) for i in range(n))))

    async def total(self, n: int) -> int:
        return sum([i async for i in self.stream("streams.upto", n)])

    async def cancelled(self, mark: str) -> None:
        """Writes `mark` when it is cancelled."""
        Path(f"{mark}.began").write_text("")
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            Path(mark).write_text("cancelled")
            raise


class Batches(Actor):
    @slabwire.batched(max_size=4, max_wait_s=0.05)
    def square(self, xs: list[int]) -> list[int]:
        self.largest = max(getattr(self, "largest", 0), len(xs))
        return [x * x for x in xs]

    def largest_batch(self) -> int:
        return getattr(self, "largest", 0)


class Dies(Actor):
    """Kills its own process, as often as told."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def _deaths(self, name: str) -> int:
        return len(list(self.folder.glob(f"{name}-*")))

    def _die(self, name: str, times: int) -> None:
        deaths = self._deaths(name)
        if deaths < times:
            (self.folder / f"{name}-{deaths}").touch()
            os.kill(os.getpid(), signal.SIGKILL)

    def plain(self, name: str, times: int) -> int:
        self._die(name, times)
        return self.context.attempt

    async def coroutine(self, name: str, times: int) -> int:
        await asyncio.sleep(0)
        self._die(name, times)
        return self.context.attempt

    def yields(self, name: str, times: int, at: int) -> Iterator[int]:
        for i in range(10):
            if i == at:
                self._die(name, times)
            yield i

    @slabwire.resumable
    def resumes(self, name: str, times: int, at: int, sent: int = 0) -> Iterator[int]:
        for i in range(sent, 10):
            if i == at:
                self._die(name, times)
            yield i

    def keeps(self, x: np.ndarray) -> float:
        self.kept = getattr(self, "kept", [])
        self.kept.append(x)
        return float(x[0])


class Emits(Actor):
    """Sends each input on by a declared output, several times."""

    out = Output(int)

    def go(self, n: int, times: int = 1) -> None:
        for i in range(times):
            self.emit("out", n * 100 + i)


class DiesAfterEmit(Actor):
    """Emits, and dies once before it has returned: its output was sent, its input is not committed."""

    out = Output(int)

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def go(self, n: int) -> None:
        self.emit("out", n)
        mark = self.folder / f"died-{n}"
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)


class Collects(Actor):
    """Notes what it gets in a file, so that it can be seen from outside."""

    def __init__(self, path: str) -> None:
        self.path = path

    def take(self, n: int) -> int:
        with open(self.path, "a") as file:
            file.write(f"{n}\n")
        return n

    def slowly(self, n: int) -> int:
        while not Path(f"{self.path}.go").exists():
            time.sleep(0.002)
        return self.take(n)


class Hangs(Actor):
    def loop(self) -> None:
        while True:
            pass

    def fine(self) -> str:
        return "fine"


class FailsToStart(Actor):
    def on_start(self) -> None:
        raise RuntimeError("no licence for this model")

    def use(self) -> None:
        """Never runs."""


class Hooks(Actor):
    def __init__(self, path: str) -> None:
        self.path = Path(path)

    async def on_start(self) -> None:
        await asyncio.sleep(0)
        self.started: str = await self.call("echo.echo", "started")

    def on_stop(self) -> None:
        self.path.write_text("stopped")

    def state(self) -> str:
        return self.started


class Restless(Actor):
    """Has a task that never waits for anything, so that its loop never sleeps."""

    async def on_start(self) -> None:
        self.turns = 0
        self.task = asyncio.create_task(self.turn())

    @slabwire.private
    async def turn(self) -> None:
        while True:
            self.turns += 1
            await asyncio.sleep(0)

    def seen(self, n: int) -> list[int]:
        return [n, self.turns]

    def on_stop(self) -> None:
        self.task.cancel()


class Leaves(Actor):
    """Gives what it has when the graph begins to drain."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    async def linger(self) -> str:
        self.path.write_text("lingers")
        self.drained = asyncio.Event()
        await self.drained.wait()
        return "drained"

    def on_drain(self) -> None:
        self.drained.set()


class Passes(Actor):
    """Forwards what it gets without touching it."""

    def on(self, x: np.ndarray) -> np.ndarray:
        return x


class Loans(Actor):
    """Fresh arrays from its own slab, all of one value."""

    def filled(self, value: float, nbytes: int = 400_000) -> np.ndarray:
        array = self.loan(nbytes // 4, np.float32)
        array[:] = value
        return array


class Keeps(Actor):
    """Never lets go of what it got."""

    def take(self, x: np.ndarray) -> int:
        self.kept = [*getattr(self, "kept", []), x]
        return len(self.kept)

    def first(self) -> float:
        return float(self.kept[0][0])


class SlowToStart(Actor):
    """Its second start takes until a file appears; notes each message that it handles."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        starts = len(list(self.folder.glob("start-*")))
        (self.folder / f"start-{starts}").touch()
        while starts and not (self.folder / "go").exists():
            time.sleep(0.002)

    def note(self, n: int) -> int:
        with open(self.folder / "noted", "a") as file:
            file.write(f"{n}\n")
        return n


class Fragile(Actor):
    """Coroutines, one of which ends the process each time."""

    async def take(self, n: int) -> int:
        await asyncio.sleep(0.05)
        if n < 0:
            os._exit(7)
        await asyncio.sleep(0.05)
        return n

    async def awaits_cancelled(self) -> None:
        task = asyncio.ensure_future(asyncio.sleep(3600))
        task.cancel()
        await task


@dataclass
class Positive:
    n: int

    def __post_init__(self) -> None:
        if self.n < 0:
            raise ValueError("negative")


class Checks(Actor):
    @slabwire.batched(max_size=4, max_wait_s=0.1)
    def square(self, items: list[Positive]) -> list[int]:
        return [each.n**2 for each in items]


class TwoLetters(Actor):
    """Sends one loan twice, beside different long texts."""

    out = Output(dict)

    def go(self, n: int) -> dict[str, Any]:
        array = self.loan(1000, np.float64)
        array[:] = n
        self.emit("out", {"tensor": array, "text": "A" * 400})
        return {"tensor": array, "text": "B" * 400}


class Reads(Actor):
    """Stands still until told, then notes the texts that it gets."""

    def __init__(self, path: str) -> None:
        self.path = path

    def read(self, tensor: np.ndarray, text: str) -> None:
        while not Path(f"{self.path}.go").exists():
            time.sleep(0.002)
        with open(self.path, "a") as file:
            file.write(f"{text[:3]}\n")


class Busy(Actor):
    """Coroutines that never wait for anything, so that the loop never sleeps while they run."""

    async def work(self, seconds: float) -> float:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            await asyncio.sleep(0)
        return seconds

    async def until_drained(self, mark: str) -> str:
        self.drains = False
        Path(mark).touch()
        while not self.drains:
            await asyncio.sleep(0)
        return "drained"

    def on_drain(self) -> None:
        self.drains = True


class Patient(Actor):
    """Handlers of each kind that look at their input, let go of it, and end when `go` is there.

    Each answers with what it saw and which attempt this is. It makes a file when it has begun.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def _see(self, x: Any) -> list[Any]:
        (self.folder / f"{self.context.actor}-began").touch()
        return [x if isinstance(x, str) else float(x.sum()), self.context.attempt]

    def _wait(self) -> None:
        while not (self.folder / "go").exists():
            time.sleep(0.002)

    async def _await(self) -> None:
        while not (self.folder / "go").exists():
            await asyncio.sleep(0.002)

    def plain(self, x: Any) -> list[Any]:
        seen = self._see(x)
        self._wait()
        return seen

    @slabwire.batched
    def batch(self, xs: list[Any]) -> list[Any]:
        seen = [self._see(x) for x in xs]
        xs.clear()
        self._wait()
        return seen

    def generator(self, x: Any) -> Iterator[Any]:
        seen = self._see(x)
        del x
        self._wait()
        yield seen

    async def coroutine(self, x: Any) -> Any:
        seen = self._see(x)
        del x
        await self._await()
        return seen

    async def async_generator(self, x: Any) -> AsyncIterator[Any]:
        seen = self._see(x)
        del x
        await self._await()
        yield seen


class Asks(Actor):
    """Asks others for its callers."""

    async def ask(self, port: str, x: str) -> list[Any]:
        return [item async for item in self.stream(port, x)]

    def texts(self, n: int) -> Iterator[str]:
        for i in range(n):
            yield str(i) * 1000


class Lasts(Actor):
    """Streams that end when a file is there, and make one when they are closed."""

    async def last(self, mark: str) -> AsyncIterator[str]:
        try:
            yield mark
            while not Path(f"{mark}.go").exists():
                await asyncio.sleep(0.002)
        finally:
            Path(f"{mark}.closed").touch()


class Floods(Actor):
    """Fills the lane to `lasts`: one stream runs, one waits for its place, and behind it lie requests taken back."""

    async def flood(self, mark: str) -> None:
        self.is_full = False
        async with contextlib.aclosing(self.stream("lasts.last", mark)) as first, asyncio.TaskGroup() as group:
            await anext(first)
            group.create_task(self._read(f"{mark}.waiting"))
            while not self.is_full:
                task = group.create_task(self._read(f"{mark}.taken-back"))
                await asyncio.sleep(0.001)
                task.cancel()
            Path(f"{mark}.full").touch()

    async def _read(self, mark: str) -> None:
        try:
            async for _ in self.stream("lasts.last", mark):
                pass
        except slabwire.Overloaded:
            self.is_full = True
