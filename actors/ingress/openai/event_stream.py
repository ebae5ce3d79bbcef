"""An open stream of server-sent events, which is never silent for long."""

from __future__ import annotations

import asyncio

from starlette.types import Send

from ..requests.refusals import ClientLeft

PING = b": ping\n\n"
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


class EventStream:
    """One response. Several tasks may send; each event goes out whole.

    Opens with the first thing sent. Where nothing was sent for `ping_every_s`, `keep_awake` sends a comment: so the
    headers go out no later than that, and what fails afterwards can only be told as an event.
    Raises ClientLeft from any of its methods, where the server says so by an OSError.
    """

    def __init__(self, send: Send, ping_every_s: float) -> None:
        self.opened = False
        self._send = send
        self._ping_every_s = ping_every_s
        self._closed = False
        self._clock = asyncio.get_running_loop().time
        self._spoke_at = self._clock()
        self._turn = asyncio.Lock()

    async def send(self, events: bytes) -> None:
        """Sends whole events, or a comment, after the headers if they are not out; nothing once it is closed."""
        async with self._turn:
            if not self._closed:
                await self._write(events, more=True)

    async def close(self, events: bytes = b"") -> None:
        """Sends the last of it."""
        async with self._turn:
            self._closed = True
            await self._write(events, more=False)

    async def keep_awake(self) -> None:
        """Runs beside the senders, until it is cancelled."""
        while True:
            silent_s = self._clock() - self._spoke_at
            if silent_s >= self._ping_every_s:
                await self.send(PING)
            else:
                await asyncio.sleep(self._ping_every_s - silent_s)

    async def _write(self, body: bytes, *, more: bool) -> None:
        try:
            if not self.opened:
                await self._send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
                self.opened = True
            await self._send({"type": "http.response.body", "body": body, "more_body": more})
        except OSError as error:
            raise ClientLeft("the client left before the end of its stream") from error
        self._spoke_at = self._clock()
