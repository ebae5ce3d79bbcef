"""The body of a streamed answer, written to its connection without ASGI in between."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from .flow import Flow


class Cycle(Protocol):
    """The answer whose body it is."""

    transport: asyncio.Transport
    flow: Flow
    chunked_encoding: bool
    disconnected: bool
    response_complete: bool

    def finish(self) -> None:
        """All of it has been written."""


class DirectBody:
    """A `StreamedBody` of a request whose head is out."""

    __slots__ = ("_cycle", "_frames", "_is_over", "_transport", "on_full", "on_left", "on_room")

    def __init__(self, cycle: Cycle) -> None:
        self.on_full: Callable[[], None] | None = None
        self.on_room: Callable[[], None] | None = None
        self.on_left: Callable[[], None] | None = None
        self._cycle = cycle
        self._transport = cycle.transport
        self._is_over = cycle.disconnected
        self._frames = bool(cycle.chunked_encoding)  # to HTTP/1.0 the body goes as it is

    @property
    def is_full(self) -> bool:
        return self._cycle.flow.write_paused

    @property
    def has_left(self) -> bool:
        return self._cycle.disconnected

    @property
    def is_open(self) -> bool:
        """Whether its end has not come, and the client is there."""
        return not self._is_over

    def write(self, data: bytes) -> None:
        if self._is_over or not data:
            return
        # One chunk of RFC 9112, section 7.1.
        self._transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self._frames else data)

    def end(self, data: bytes = b"") -> None:
        if self._is_over:
            return
        cycle = self._cycle
        self._is_over = True
        self.on_full = self.on_room = self.on_left = None
        if self._frames:
            data = (b"%x\r\n%b\r\n" % (len(data), data) if data else b"") + b"0\r\n\r\n"
        cycle.transport.write(data)
        cycle.finish()

    def lose(self) -> None:
        """The client has left; `end` would come too late."""
        on_left = self.on_left
        self._is_over = True
        self.on_full = self.on_room = self.on_left = None
        if on_left is not None:
            on_left()
