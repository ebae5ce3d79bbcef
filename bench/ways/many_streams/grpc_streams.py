"""gRPC's asyncio server and client over a Unix socket: for each stream a call, all of them in one channel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import grpc

from ...harness.load import MOST_STREAMS
from .item import mark_of
from .pacing import Queued, QueuedPacing
from .tasks import TaskReading
from .way import PartyWay

_SERVICE, _METHOD = "bench", "tokens"
# A server turns away calls beyond some thousand that wait to be begun, and here all of them come at once.
_PENDING = ("grpc.server.max_pending_requests", "grpc.server.max_pending_requests_hard_limit")
_OPTIONS = [(each, MOST_STREAMS) for each in _PENDING]


class Source(QueuedPacing):
    """The server."""

    def __init__(self, pace: float, address: str) -> None:
        super().__init__()
        self.pace = pace
        self._server: Any = grpc.aio.server(options=_OPTIONS)
        handler = grpc.unary_stream_rpc_method_handler(self._items, bytes.decode)
        self._server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(_SERVICE, {_METHOD: handler})])
        self._server.add_insecure_port(f"unix-abstract:{address}")

    async def ready(self) -> None:
        """Answers once it listens."""
        await self._server.start()

    async def close(self) -> None:
        await self._server.stop(None)

    async def _items(self, request: str, _context: Any) -> AsyncIterator[bytes]:
        queue, number = asyncio.Queue[str](), int(request)
        self.queued[number] = Queued(queue, mark_of(number))
        try:
            while True:
                yield (await queue.get()).encode()
        finally:
            del self.queued[number]


class Reader(TaskReading):
    """The client."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self._channel = grpc.aio.insecure_channel(f"unix-abstract:{address}")
        self._tokens = self._channel.unary_stream(f"/{_SERVICE}/{_METHOD}", str.encode, bytes.decode)

    async def ready(self) -> None:
        """Answers once it is connected."""
        await self._channel.channel_ready()

    async def close(self) -> None:
        await self._channel.close()

    async def _items(self, number: int) -> AsyncGenerator[str, None]:
        call = self._tokens(str(number))
        try:
            async for item in call:
                yield item
        finally:
            call.cancel()


class Grpc(PartyWay):
    name = "grpc"
    title = "gRPC (asyncio), Unix socket"
    source_work = "grpc_streams:Source"
    reader_work = "grpc_streams:Reader"
