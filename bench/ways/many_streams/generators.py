"""Two actors: the source's handler is an asynchronous generator, the reader has a task for each stream."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator

from ....runtime.actor.actor import Actor
from ....runtime.launch.graph import Graph
from ...harness.load import Load
from .item import mark_of
from .pacing import Queued, QueuedPacing
from .tasks import TaskReading
from .way import OTHER_CALLS, GraphWay


class Source(QueuedPacing, Actor):
    """Its loop puts items into queues, from which the generators take them."""

    def __init__(self, pace: float) -> None:
        super().__init__()
        self.pace = pace

    async def tokens(self, number: int) -> AsyncIterator[str]:
        queue = asyncio.Queue[str]()
        self.queued[number] = Queued(queue, mark_of(number))
        try:
            while True:
                yield await queue.get()
        finally:
            del self.queued[number]


class Reader(TaskReading, Actor):
    """Reads them all."""

    def _items(self, number: int) -> AsyncGenerator[str, None]:
        return self.stream("source.tokens", number)


class Generators(GraphWay):
    name = "generators"
    title = "async generators, async for"

    def __init__(self, load: Load) -> None:
        graph = Graph(f"bench-streams-{os.getpid()}")
        source = graph.add(Source, concurrency=load.streams + OTHER_CALLS, pace=load.pace)
        reader = graph.add(Reader, calls=load.streams)
        super().__init__(graph, source, reader)
