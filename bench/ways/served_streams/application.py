"""What the applications of the peers have alike: OpenAI's chat completions with Starlette, whatever brings the tokens.

A server imports an application by name in each of its processes, which ends with whom it gets its tokens or its orders
from.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from .asked import Asked, asked_by
from .server import PATH

# The socket of whom each process of a server has to do with.
SOCKET = "BENCH_INGRESS_SOCKET"
# How many batches the streams of all processes are in.
BATCHES = "BENCH_INGRESS_BATCHES"
# What comes at a time is larger than what asyncio takes by default.
_READ_NBYTES = 1 << 22

# Makes the events of an answer.
Events = Callable[[Asked], AsyncIterator[str]]
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def application_of(events: Events, talk: Talk) -> Starlette:
    """Streams these events. `talk` is held to its end with whoever listens at `SOCKET`; then the process ends."""

    async def completions(request: Request) -> StreamingResponse:
        body = await request.json()
        return StreamingResponse(events(asked_by(body["messages"][0]["content"])), media_type="text/event-stream")

    @asynccontextmanager
    async def talking(_: Starlette) -> AsyncIterator[None]:
        reader, writer = await asyncio.open_unix_connection(os.environ[SOCKET], limit=_READ_NBYTES)

        async def go() -> None:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await talk(reader, writer)
            os._exit(0)

        task = asyncio.create_task(go())
        yield
        task.cancel()

    return Starlette(routes=[Route(PATH, completions, methods=["POST"])], lifespan=talking)
