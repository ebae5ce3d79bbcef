"""Actors whose work is not in handlers: they begin tasks, timers and threads."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from slabwire import Actor, Output


class Broken(Exception):
    pass


class Fails(Actor):
    """Begins something in `on_start` that dies, in the way that it is told."""

    def __init__(self, way: str) -> None:
        self.way = way

    async def on_start(self) -> None:
        await getattr(self, f"_{self.way}")()

    async def _read(self) -> None:
        await asyncio.sleep(0.01)
        raise Broken("caf\udce9")

    async def _kept(self) -> None:
        self.task = asyncio.create_task(self._read())

    async def _dropped(self) -> None:
        asyncio.create_task(self._read())  # noqa: RUF006

    async def _ensured(self) -> None:
        self.task = asyncio.ensure_future(self._read())

    async def _own_context(self) -> None:
        import contextvars

        self.task = asyncio.get_running_loop().create_task(self._read(), context=contextvars.Context())

    async def _timer(self) -> None:
        def tick(left: int) -> None:
            if not left:
                raise Broken("in a timer")
            asyncio.get_running_loop().call_later(0.01, tick, left - 1)

        tick(30)

    async def _base(self) -> None:
        async def read() -> None:
            raise GeneratorExit

        self.task = asyncio.create_task(read())

    async def _group(self) -> None:
        async def run() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._read())

        self.task = asyncio.create_task(run())

    def pid(self) -> int:
        return os.getpid()


class Careful(Actor):
    """Begins tasks that fail, and takes what they raise, sooner or later."""

    async def on_start(self) -> None:
        early = asyncio.create_task(self._fail())
        await asyncio.sleep(0.3)  # longer than an untaken error may lie
        with contextlib.suppress(Broken):
            await early
        self.main = asyncio.create_task(self._main())
        self.cancelled = asyncio.create_task(asyncio.sleep(3600))
        self.cancelled.cancel()
        self.over = asyncio.create_task(asyncio.sleep(0))

    async def _fail(self) -> None:
        raise Broken

    async def _main(self) -> None:
        for _ in range(2):
            ahead = asyncio.create_task(self._fail())
            await asyncio.sleep(0.3)
            with contextlib.suppress(Broken):
                await ahead
        await asyncio.gather(self._fail(), self._fail(), return_exceptions=True)
        done, _ = await asyncio.wait([asyncio.create_task(self._fail())])
        for each in done:
            each.exception()
        self.main_is_over = True

    async def waits(self) -> bool:
        await self.main
        await asyncio.sleep(0.2)
        return self.main_is_over

    def pid(self) -> int:
        return os.getpid()


class Careless(Actor):
    """Its handlers begin tasks that fail, and never look at them."""

    async def _fail(self) -> None:
        raise Broken("of a handler")

    async def keeps(self) -> int:
        self.task = asyncio.create_task(self._fail())
        return 1

    async def drops(self) -> int:
        asyncio.create_task(self._fail())  # noqa: RUF006
        return 1

    async def on_start(self) -> None:
        self.forever = asyncio.create_task(self._spawn())

    async def _spawn(self) -> None:
        asyncio.create_task(self._fail())  # noqa: RUF006
        await asyncio.sleep(3600)

    def thread(self) -> int:
        def die() -> None:
            raise Broken("of a thread")

        threading.Thread(target=die).start()
        return 1

    def pid(self) -> int:
        return os.getpid()


class Rows(Actor):
    """A source, as everybody writes one."""

    rows = Output(Any)

    def __init__(self, count: int, verb: str, nbytes: int = 1 << 16, copies: bool = False) -> None:
        self.count, self.verb, self.nbytes, self.copies = count, verb, nbytes, copies

    async def on_start(self) -> None:
        self.task = asyncio.create_task(self._read())

    def _row(self, n: int) -> np.ndarray:
        row = np.empty(self.nbytes, np.uint8) if self.copies else self.loan((self.nbytes,), np.uint8)
        row[:] = n % 251
        return row

    async def _read(self) -> None:
        for n in range(self.count):
            if self.verb == "send":
                await self.send("rows", self._row(n))
            else:
                self.emit("rows", self._row(n))
                await asyncio.sleep(0)


class Hasty(Rows):
    """Emits all at once."""

    async def _read(self) -> None:
        for n in range(self.count):
            self.emit("rows", self._row(n))


class Takes(Actor):
    """Takes rows, slowly, and knows whether all came in order."""

    def __init__(self, seconds: float = 0.0, keep: int = 0) -> None:
        self.seconds, self.most_kept = seconds, keep
        self.seen = self.wrong = 0
        self.kept: list[Any] = []

    def take(self, row: np.ndarray) -> None:
        self.wrong += int(row[0]) != self.seen % 251 or int(row[-1]) != self.seen % 251
        self.seen += 1
        if self.most_kept:
            self.kept = [*self.kept[1 - self.most_kept :], row]
        time.sleep(self.seconds)

    def result(self) -> tuple[int, int]:
        return self.seen, self.wrong


class Asked(Actor):
    """Sends for its callers."""

    rows = Output(int)

    async def many(self, n: int) -> None:
        for each in range(n):
            await self.send("rows", each)

    async def begin(self, n: int) -> None:
        """The task that sends outlives this handler, and does so in the middle of a send that waits."""
        self.task = asyncio.create_task(self.many(n))
        await asyncio.sleep(0.005)


def number(n: int) -> int:
    time.sleep(0.001)
    return n


class Threaded(Actor):
    """Takes work from a thread, in the right way and in the wrong ones."""

    rows = Output(int)

    async def on_start(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.found: list[str] = []

    def wrong(self) -> list[str]:
        for attempt in (lambda: self.emit("rows", 1), lambda: asyncio.run(self.send("rows", 1)), self._calls):
            self._in_thread(self._noting(attempt)).join()
        return self.found

    def _calls(self) -> None:
        async def call() -> None:
            await self.call("number.number", 1)

        asyncio.run(call())

    def _noting(self, attempt: Callable[[], Any]) -> Callable[[], None]:
        def run() -> None:
            try:
                attempt()
            except Exception as error:
                self.found.append(str(error))

        return run

    def right(self) -> int:
        def read() -> None:
            for each in range(300):
                asyncio.run_coroutine_threadsafe(self.send("rows", each), self.loop).result()

        self._in_thread(read)
        return 1

    @staticmethod
    def _in_thread(action: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=action)
        thread.start()
        return thread
