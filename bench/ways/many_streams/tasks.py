"""A reader with a task for each stream, which takes its items one by one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from .reading import Outlet, Reading


class TaskReading(Reading):
    """The part of those readers that is the same."""

    def __init__(self) -> None:
        super().__init__()
        self.tasks: list[asyncio.Task[None]] = []
        self.failed = 0
        self.paused: set[int] = set()

    def _items(self, number: int) -> AsyncGenerator[str, None]:
        """The stream of that number."""
        raise NotImplementedError

    async def begin(self) -> None:
        """All streams, each in a task of its own."""
        self.tasks = [asyncio.create_task(self._read(each, outlet)) for each, outlet in enumerate(self.writer.outlets)]

    async def _read(self, number: int, outlet: Outlet) -> None:
        try:
            async with aclosing(self._items(number)) as items:
                async for item in items:
                    if number in self.paused:
                        await asyncio.get_running_loop().create_future()
                    outlet.put([item])
        except Exception:
            self.failed += 1
        else:
            self.failed += 1  # a stream has no end of its own

    async def _cancel(self) -> None:
        for each in self.tasks:
            each.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    def pause(self, number: int) -> None:
        """Takes no item of that stream any more."""
        self.paused.add(number)

    def errors(self) -> int:
        """How many streams have ended by themselves."""
        return self.failed
