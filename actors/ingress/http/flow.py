"""What uvicorn's classes keep of a connection, in fewer bytes."""

from __future__ import annotations

import asyncio

from httptools import HttpRequestParser
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# What uvicorn's protocol class keeps of a connection: as slots, for a dict of so many takes 2 KiB.
OF_UVICORN = (
    *("access_log", "access_logger", "app", "app_state", "asgi_version", "client", "config", "connections", "cycle"),
    *("expect_100_continue", "flow", "headers", "limit_concurrency", "logger", "loop", "parser", "pipeline"),
    *("root_path", "scheme", "scope", "server", "server_state", "tasks", "timeout_keep_alive"),
    *("timeout_keep_alive_task", "transport", "url", "ws_protocol_class"),
)


# A reader for which more waits than the kernel and we keep holds up a model. It has so long until it has caught up.
READ_WITHIN_S = 30.0


class Flow:
    """Stands for uvicorn's `FlowControl`, which has an asyncio.Event for each connection, and in it a deque.

    While writing is paused the reader has a time, after which it loses the connection.
    """

    __slots__ = ("_patience", "_room", "_transport", "read_paused", "write_paused")

    def __init__(self, transport: asyncio.Transport) -> None:
        self.read_paused = self.write_paused = False
        self._transport = transport
        self._room: asyncio.Event | None = None  # where somebody waits for it
        self._patience: asyncio.TimerHandle | None = None

    async def drain(self) -> None:
        """Waits until writing is paused no longer."""
        if self.write_paused:
            self._room = self._room or asyncio.Event()
            await self._room.wait()

    def pause_reading(self) -> None:
        if not self.read_paused:
            self.read_paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self.read_paused:
            self.read_paused = False
            self._transport.resume_reading()

    def pause_writing(self) -> None:
        self.write_paused = True
        self._patience = asyncio.get_running_loop().call_later(READ_WITHIN_S, self._transport.abort)

    def resume_writing(self) -> None:
        self.write_paused = False
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        if self._room is not None:
            self._room.set()
            self._room = None


class News:
    """Stands for an `asyncio.Event` of a request, most of which nobody ever waits for."""

    __slots__ = ("_event", "_is_set")

    def __init__(self) -> None:
        self._is_set = False
        self._event: asyncio.Event | None = None  # where somebody waits

    def set(self) -> None:
        self._is_set = True
        if self._event is not None:
            self._event.set()
            self._event = None

    def clear(self) -> None:
        self._is_set = False

    async def wait(self) -> None:
        if not self._is_set:
            self._event = self._event or asyncio.Event()
            await self._event.wait()


def new_parser(protocol: HttpToolsProtocol) -> HttpRequestParser:
    """As uvicorn makes one. It costs a KiB, and a microsecond to make."""
    parser = HttpRequestParser(protocol)
    parser.set_dangerous_leniencies(lenient_data_after_close=True)
    return parser
