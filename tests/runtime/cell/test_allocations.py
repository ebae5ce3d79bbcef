"""What one item of a stream leaves behind in either process: nothing, however many streams are open."""

from __future__ import annotations

import asyncio
import gc
import sys
from pathlib import Path
from typing import Any

import pytest

import slabwire
from slabwire import Actor, Graph, IncomingStream, ReplyStream

STREAMS, STEPS = 500, 20


class Source(Actor):
    """Steps as often as it is told to."""

    def __init__(self) -> None:
        self.open: list[ReplyStream[str]] = []

    def tokens(self) -> ReplyStream[str]:
        stream: ReplyStream[str] = self.reply_stream()
        self.open.append(stream)
        return stream

    async def step(self, steps: int) -> int:
        """The blocks of memory that are in use behind these steps."""
        for number in range(steps):
            self.publish([(each, f"token {number}") for each in self.open])
            while any(not each.room for each in self.open):
                await asyncio.sleep(0.001)
        return blocks()

    def count(self) -> int:
        return len(self.open)


class Reader(Actor):
    """Counts what comes."""

    def __init__(self) -> None:
        self.items = 0

    async def begin(self, n: int) -> None:
        self.group = self.streams(self._on_items)
        for _ in range(n):
            self.group.begin("source.tokens")

    async def read(self, items: int) -> int:
        """The blocks of memory that are in use once so many items have come."""
        while self.items < items:
            await asyncio.sleep(0.001)
        return blocks()

    @slabwire.private
    def _on_items(self, stream: IncomingStream, items: list[Any]) -> None:
        self.items += len(items)


def blocks() -> int:
    gc.collect()
    return sys.getallocatedblocks()


def test_ten_thousand_items_of_many_streams_leave_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(tmp_path))
    graph = Graph("blocks")
    source, reader = graph.add(Source, concurrency=STREAMS + 8), graph.add(Reader, calls=STREAMS)
    graph.expose(source.step, source.count, reader.begin, reader.read)
    with graph.run(drain_timeout_s=0.1) as running:
        client = running.client
        client.call("reader.begin", STREAMS)
        while client.call("source.count") < STREAMS:
            pass
        client.call("source.step", STEPS)  # the first steps fill caches and lists that stay as they are
        before = client.call("source.step", 1), client.call("reader.read", STREAMS * (STEPS + 1))
        client.call("source.step", STEPS)
        after = client.call("source.step", 1), client.call("reader.read", 2 * STREAMS * (STEPS + 1))
    for was, grown in zip(before, after, strict=True):
        # Less than a block for each hundredth item: what is noted now and then.
        assert grown - was < STREAMS * STEPS / 100
