"""Two actors: the source publishes an item of each of its reply streams a step, the reader has one group of streams."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from typing import Any

from ....runtime.actor.actor import Actor
from ....runtime.actor.handler import private
from ....runtime.actor.reply_stream import ReplyStream
from ....runtime.actor.stream_group import IncomingStream, StreamGroup
from ....runtime.errors import Overloaded
from ....runtime.launch.graph import Graph
from ...harness.load import Load
from .item import mark_of
from .pacing import Pacing
from .reading import Outlet, Reading
from .way import OTHER_CALLS, GraphWay

_AGAIN_AFTER_S = 0.001


@dataclass(frozen=True)
class _Made:
    """What a source knows of a stream."""

    number: int
    mark: str


class Source(Pacing, Actor):
    """All streams get their items in one call a step."""

    def __init__(self, pace: float) -> None:
        super().__init__()
        self.pace = pace
        self._open: dict[ReplyStream[str], None] = {}

    def tokens(self, number: int) -> ReplyStream[str]:
        stream = self.reply_stream()
        stream.tag = _Made(number, mark_of(number))
        stream.add_done_callback(self._forget)
        self._open[stream] = None
        return stream

    def _forget(self, stream: ReplyStream[str]) -> None:
        del self._open[stream]

    def _step(self, stamp: str) -> None:
        self.publish([(each, stamp + each.tag.mark) for each in self._open if each.room or self._misses(each)])

    def _misses(self, stream: ReplyStream[str]) -> bool:
        """A stream without room does without an item of this step."""
        self.missed[stream.tag.number] += 1
        return False

    def _open_streams(self) -> int:
        return len(self._open)


class Reader(Reading, Actor):
    """All that a wake-up brings is handed on in one pass."""

    def __init__(self) -> None:
        self._failed = 0

    async def on_start(self) -> None:
        self._group: StreamGroup = self.streams(self._on_items)

    async def begin(self) -> None:
        """All streams; where no place is free, it waits for one."""
        self._begun = [await self._begin(each, outlet) for each, outlet in enumerate(self.writer.outlets)]

    async def _begin(self, number: int, outlet: Outlet) -> IncomingStream:
        while True:
            try:
                stream = self._group.begin("source.tokens", number)
            except Overloaded:
                await asyncio.sleep(_AGAIN_AFTER_S)
                continue
            stream.tag = outlet
            return stream

    @private
    def _on_items(self, stream: IncomingStream, items: list[Any]) -> None:
        if items:
            stream.tag.put(items)
        if stream.is_over:
            self._failed += 1  # a stream has no end of its own

    async def _cancel(self) -> None:
        for each in self._begun:
            each.cancel()

    def pause(self, number: int) -> None:
        """Takes no item of that stream any more."""
        self._begun[number].pause()

    def errors(self) -> int:
        """How many streams have ended by themselves."""
        return self._failed


class Groups(GraphWay):
    name = "groups"
    title = "reply streams, a group"

    def __init__(self, load: Load) -> None:
        graph = Graph(f"bench-streams-{os.getpid()}")
        source = graph.add(Source, concurrency=load.streams + OTHER_CALLS, pace=load.pace)
        reader = graph.add(Reader, calls=load.streams)
        super().__init__(graph, source, reader)
