"""The application of the peers: OpenAI's chat completions with Starlette, a ticker of its process for all streams.

A server imports it by name in each of its processes, which then asks for orders at the socket that `ORDERS` names. What
a token takes is as little as Starlette allows: one future a stream, which the ticker sets, and a chunk whose parts are
made once.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from ....actors.ingress.openai.chunks import Chunks
from ...harness.party import answer
from ..many_streams.item import mark_of
from ..many_streams.pacing import Pacing
from .server import MODEL, PATH

ORDERS, PACE = "BENCH_INGRESS_ORDERS", "BENCH_INGRESS_PACE"
_TEXT = "TEXT"


class Ticker(Pacing):
    """Wakes all streams of this process, `pace` times a second."""

    def __init__(self, pace: float) -> None:
        super().__init__()
        self.pace = pace
        self._open = 0
        self._waiting: list[asyncio.Future[str]] = []

    async def tokens(self, number: int) -> AsyncIterator[str]:
        """Those of one stream: OpenAI's chunks, with as many bytes as those of the ingress."""
        loop, mark = asyncio.get_running_loop(), mark_of(number)
        chunks = Chunks(MODEL, 1, usage=False)
        before, _, after = chunks.item(0, {"text": _TEXT + mark, "tokens": 1}).decode().partition(_TEXT)
        yield chunks.role(0).decode()
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


@asynccontextmanager
async def _obeying(_: Starlette) -> AsyncIterator[None]:
    """Does what the bench orders; without it, the process ends."""
    reader, writer = await asyncio.open_unix_connection(os.environ[ORDERS])

    async def obey() -> None:
        with suppress(ConnectionError):
            await answer(_ticker, reader, writer)
        os._exit(0)

    task = asyncio.create_task(obey())
    yield
    task.cancel()


async def _completions(request: Request) -> StreamingResponse:
    body = await request.json()
    tokens = _ticker.tokens(int(body["messages"][0]["content"]))
    return StreamingResponse(tokens, media_type="text/event-stream")


_ticker = Ticker(float(os.environ.get(PACE, "1")))
application = Starlette(routes=[Route(PATH, _completions, methods=["POST"])], lifespan=_obeying)
