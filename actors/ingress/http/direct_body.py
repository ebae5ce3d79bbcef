"""The body of a streamed answer, written to its connection without ASGI in between."""

from __future__ import annotations

from collections.abc import Callable

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


class DirectBody:
    """A `StreamedBody` of a request whose head is out."""

    __slots__ = ("_cycle", "_frames", "on_room")

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self.on_room: Callable[[], None] | None = None
        self._cycle = cycle
        self._frames = bool(cycle.chunked_encoding)  # to HTTP/1.0 the body goes as it is

    @property
    def is_full(self) -> bool:
        return self._cycle.flow.write_paused

    def write(self, data: bytes) -> None:
        cycle = self._cycle
        if cycle.disconnected or cycle.response_complete or not data:
            return
        # One chunk of RFC 9112, section 7.1.
        cycle.transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self._frames else data)
