"""The application of the peers with the source inside: a ticker of each process makes the tokens of its streams.

What a token takes is as little as Starlette allows: one future a stream, which the ticker sets, and a chunk whose parts
are made once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from json.encoder import encode_basestring
from time import monotonic_ns

from ...harness.party import answer
from ..many_streams.item import mark_of, stamp_of
from ..many_streams.pacing import Pacing
from .application import application_of
from .asked import Asked
from .narration import Narration


class Ticker(Pacing):
    """Wakes all streams of this process at each step."""

    def __init__(self) -> None:
        super().__init__()
        self._open = 0
        self._waiting: list[asyncio.Future[str]] = []

    async def events(self, asked: Asked) -> AsyncIterator[str]:
        """Those of one answer. What stands around the stamp of a step is put together once."""
        loop, narration, mark = asyncio.get_running_loop(), Narration(), mark_of(asked.number)
        before, after = f'{narration.before}"', f"{encode_basestring(mark)[1:]}{narration.after}"
        yield narration.opening
        if asked.briefly:
            yield before + stamp_of(monotonic_ns()) + after
            yield narration.end
            return
        self._open += 1
        try:
            while True:
                step = loop.create_future()
                self._waiting.append(step)
                yield before + await step + after
        finally:
            self._open -= 1

    def _step(self, stamp: str) -> None:
        waiting, self._waiting = self._waiting, []
        self.missed[0] += self._open - len(waiting)
        for each in waiting:
            if not each.done():
                each.set_result(stamp)


_ticker = Ticker()


async def _obey(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Does what the bench orders."""
    await answer(_ticker, reader, writer)


application = application_of(_ticker.events, _obey)
