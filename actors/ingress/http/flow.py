"""What uvicorn's classes keep of a connection, in fewer bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from httptools import HttpRequestParser
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

# What uvicorn's protocol class keeps of a connection: as slots, for a dict of so many takes 2 KiB.
OF_UVICORN = (
    *("access_log", "access_logger", "app", "app_state", "asgi_version", "client", "config", "connections", "cycle"),
    *("expect_100_continue", "flow", "headers", "limit_concurrency", "logger", "loop", "parser", "pipeline"),
    *("root_path", "scheme", "scope", "server", "server_state", "tasks", "timeout_keep_alive"),
    *("timeout_keep_alive_task", "transport", "url", "ws_protocol_class"),
)


class Flow:
    """Stands for uvicorn's `FlowControl`, which has an asyncio.Event for each connection, and in it a deque."""

    __slots__ = ("_room", "_transport", "read_paused", "write_paused")

    def __init__(self, transport: asyncio.Transport) -> None:
        self.read_paused = self.write_paused = False
        self._transport = transport
        self._room: asyncio.Event | None = None  # where somebody waits for it

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

    def resume_writing(self) -> None:
        self.write_paused = False
        if self._room is not None:
            self._room.set()
            self._room = None


class Pipeline(list[tuple[RequestResponseCycle, Callable[..., Any]]]):
    """Requests behind the one that is answered, the latest on the left. They are few, so it need be no deque."""

    __slots__ = ()

    def appendleft(self, request: tuple[RequestResponseCycle, Callable[..., Any]]) -> None:
        self.insert(0, request)

    def popleft(self) -> tuple[RequestResponseCycle, Callable[..., Any]]:
        return self.pop(0)


def new_parser(protocol: HttpToolsProtocol) -> HttpRequestParser:
    """As uvicorn makes one. It costs a KiB, and a microsecond to make."""
    parser = HttpRequestParser(protocol)
    parser.set_dangerous_leniencies(lenient_data_after_close=True)
    return parser
