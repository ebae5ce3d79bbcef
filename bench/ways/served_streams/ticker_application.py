"""The application of the peers with the source inside: a ticker of each process makes the tokens of its streams.

What a token takes is as little as Starlette allows: one future a stream, which the ticker sets, and a chunk whose parts
are made once.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from json.encoder import encode_basestring
from time import monotonic_ns

from ...harness.party import answer
from ..many_streams.item import mark_of, stamp_of
from ..many_streams.pacing import BatchedPacing
from .application import BATCHES, application_of
from .asked import Asked
from .narration import Narration


class _Batch:
    """So many streams, and what those of them wait for that have room."""

    __slots__ = ("open", "waiting")

    def __init__(self) -> None:
        self.open = 0
        self.waiting: list[asyncio.Future[str]] = []


class Ticker(BatchedPacing):
    """Wakes all streams of this process that are in a batch at its step."""

    def __init__(self, batches: int) -> None:
        super().__init__(batches)
        self._streams = [_Batch() for _ in range(batches)]

    async def events(self, asked: Asked) -> AsyncIterator[str]:
        """Those of one answer. What stands around the stamp of a step is put together once."""
        loop, narration, mark = asyncio.get_running_loop(), Narration(), mark_of(asked.number)
        before, after = f'{narration.before}"', f"{encode_basestring(mark)[1:]}{narration.after}"
        yield narration.opening
        if asked.briefly:
            yield before + stamp_of(monotonic_ns()) + after
            yield narration.end
            return
        batch = self._streams[asked.number % len(self._streams)]
        batch.open += 1
        try:
            while True:
                step = loop.create_future()
                batch.waiting.append(step)
                yield before + await step + after
        finally:
            batch.open -= 1

    def _step_batch(self, batch: int, stamp: str) -> None:
        streams = self._streams[batch]
        waiting, streams.waiting = streams.waiting, []
        self.missed[0] += streams.open - len(waiting)
        for each in waiting:
            if not each.done():
                each.set_result(stamp)


_ticker = Ticker(int(os.environ[BATCHES]))


async def _obey(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Does what the bench orders."""
    await answer(_ticker, reader, writer)


application = application_of(_ticker.events, _obey)
