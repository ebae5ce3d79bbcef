"""Actors that are struck at named points: a forwarder of each kind, the sinks behind it, and a source of streams."""

from __future__ import annotations

import asyncio
import os
import signal
import zlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import slabwire
from points import Strikes
from slabwire import Actor
from slabwire.shm.bell import Bell

# In the record, beside it in a block, and from small to large blocks.
SIZES = (0, 40, 96, 700, 3000, 70_000)


def letter(number: int) -> dict[str, Any]:
    """A message that tells whether it is whole."""
    x = np.random.default_rng(number).integers(0, 256, SIZES[number % len(SIZES)], np.uint8)
    return {"n": number, "check": checksum(number, x), "x": x}


def checksum(number: int, x: NDArray[Any]) -> int:
    return zlib.crc32(x.tobytes(), number)


def bare_letter(number: int) -> NDArray[np.uint8]:
    """The same as one array: number and checksum stand at its beginning."""
    written = letter(number)
    head = np.array([number, written["check"]], np.uint64).view(np.uint8)
    return np.concatenate([head, written["x"]])


def read_bare(bare: NDArray[np.uint8]) -> tuple[int, bool]:
    """The number, and whether the letter is whole."""
    number, check = (int(each) for each in bare[:16].copy().view(np.uint64))
    return number, checksum(number, bare[16:]) == check


class Victim(Actor):
    """Strikes itself as planned in a folder, and its successors go on with the plan."""

    def __init__(self, strikes: str = "") -> None:
        self._strikes = strikes

    def on_start(self) -> None:
        if self._strikes:
            Strikes(Path(self._strikes)).arm()


class Forwards(Victim):
    """Hands on every second message as it is, the others in blocks of its own."""

    def _on(self, n: int, check: int, x: NDArray[Any]) -> dict[str, Any]:
        if n % 2:
            own = self.loan(x.shape, x.dtype)
            own[...] = x
            x = own
        return {"n": n, "check": check, "x": x}

    def plain(self, n: int, check: int, x: np.ndarray) -> dict[str, Any]:
        return self._on(n, check, x)

    def bare(self, bare: np.ndarray) -> np.ndarray:
        """By the short way of single arrays: handed on, loaned, or copied in."""
        kind = read_bare(bare)[0] % 3
        if kind == 1:
            own = self.loan(bare.shape, bare.dtype)
            own[...] = bare
            return own
        return bare if kind else bare.copy()

    async def coroutine(self, n: int, check: int, x: np.ndarray) -> dict[str, Any]:
        await asyncio.sleep(0)
        return self._on(n, check, x)

    @slabwire.batched(max_size=4, max_wait_s=0.001)
    def batch(self, letters: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [self._on(**each) for each in letters]


class Streams(Victim):
    """Streams of letters."""

    def once(self, first: int, n: int) -> Iterator[dict[str, Any]]:
        for number in range(first, first + n):
            yield self._own(number)

    @slabwire.resumable
    def again(self, first: int, n: int, sent: int = 0) -> Iterator[dict[str, Any]]:
        if sent > n:
            raise ValueError(f"{sent} of {n} letters are said to be sent")
        for number in range(first + sent, first + n):
            yield self._own(number)

    @slabwire.resumable
    async def slowly(self, first: int, n: int, sent: int = 0) -> AsyncIterator[dict[str, Any]]:
        for number in range(first + sent, first + n):
            await asyncio.sleep(0)
            yield self._own(number)

    def _own(self, number: int) -> dict[str, Any]:
        written = letter(number)
        own = self.loan(written["x"].shape, np.uint8)
        own[...] = written["x"]
        return {**written, "x": own}


class Sink(Victim):
    """Writes down what it gets: number, whether it was whole, attempt."""

    def __init__(self, path: str, strikes: str = "") -> None:
        super().__init__(strikes)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def take(self, n: int, check: int, x: np.ndarray) -> dict[str, Any]:
        os.write(self._file, b"%d %d %d\n" % (n, checksum(n, x) == check, self.context.attempt))
        return {"n": n, "check": check, "x": x}

    def take_bare(self, bare: np.ndarray) -> np.ndarray:
        number, is_whole = read_bare(bare)
        os.write(self._file, b"%d %d %d\n" % (number, is_whole, self.context.attempt))
        return bare


class StandsStill(Actor):
    """Forwards. When `still` is there it takes it away, and stops its process right before it says that it sleeps."""

    def __init__(self, folder: str) -> None:
        self._still = Path(folder) / "still"

    def on_start(self) -> None:
        park, still = Bell.park, self._still

        def stop_and_park(bell: Bell, reasons: int) -> float | None:
            if still.exists():
                still.unlink()
                os.kill(os.getpid(), signal.SIGSTOP)
            return park(bell, reasons)

        Bell.park = stop_and_park  # type: ignore[method-assign, assignment]

    def on(self, x: np.ndarray) -> np.ndarray:
        return x

    def ping(self) -> str:
        return "here"


class Lingers(Actor):
    """Coroutines that end when `end` is there; its second start takes until `go` is there."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)

    async def on_start(self) -> None:
        starts = len(list(self._folder.glob("start-*")))
        (self._folder / f"start-{starts}").touch()
        while starts and not (self._folder / "go").exists():
            await asyncio.sleep(0.002)

    async def linger(self, n: int) -> int:
        while not (self._folder / "end").exists():
            await asyncio.sleep(0.002)
        return n


class Passes(Lingers):
    """A coroutine that hands on what it got, and whose second start takes until `go` is there."""

    async def on(self, x: np.ndarray) -> int:
        await self.call("keeps.take", x)
        return int(x[0])


class Keeps(Actor):
    """Keeps what it gets until it is told to forget it, and does not answer the first time."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)
        self._kept: Any = None

    async def take(self, x: np.ndarray) -> int:
        if self._kept is None:
            self._kept = x
            (self._folder / "kept").touch()
            while self._kept is not None:
                await asyncio.sleep(0.002)
        return int(x[0])

    def forget(self) -> None:
        self._kept = None
