"""One process: the source puts each item into its stream's `asyncio.Queue`, where a task takes it and writes it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from .item import mark_of
from .pacing import Queued, QueuedPacing
from .tasks import TaskReading
from .way import PartyWay


class Both(QueuedPacing, TaskReading):
    """Source and reader."""

    def __init__(self, pace: float, address: str) -> None:  # noqa: ARG002 - others are reached by it
        super().__init__()
        self.pace = pace

    def ready(self) -> None:
        """Answers once it is."""

    async def _items(self, number: int) -> AsyncGenerator[str, None]:
        queue = asyncio.Queue[str]()
        self.queued[number] = Queued(queue, mark_of(number))
        try:
            while True:
                yield await queue.get()
        finally:
            del self.queued[number]


class Queues(PartyWay):
    name = "queues"
    title = "asyncio queues, one process"
    source_work = "queues:Both"
