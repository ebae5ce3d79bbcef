"""An open stream of server-sent events, which is never silent for long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..requests.asgi import Message, Scope, Send
from ..requests.refusals import ClientLeft
from ..requests.streamed_body import EXTENSION, Body, StreamedBody

PING = b": ping\n\n"
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]
# More than this waits for no slow client here: some hundred tokens.
_FULL_NBYTES = 64 * 1024


class EventStream:
    """One response. Several tasks may send; each event goes out whole.

    Opens with the first thing sent. `is_direct`: the server hands over the body, and only the head goes by ASGI.
    Where nothing was sent for `ping_every_s`, `keep_up` sends a comment: so the headers go out no later than that, and
    what fails afterwards can only be told as an event.
    Methods that are awaited raise ClientLeft, where the server says so by an OSError.
    """

    def __init__(self, scope: Scope, send: Send, ping_every_s: float) -> None:
        self.opened = False
        self.is_direct = EXTENSION in scope.get("extensions", {})
        self._send_message = send
        self._ping_every_s = ping_every_s
        self._closed = False
        self._clock = asyncio.get_running_loop().time
        self._spoke_at = self._clock()
        self._turn = asyncio.Lock()
        self._waiting = _WaitingBody()
        self.direct: StreamedBody | None = None

    @property
    def body(self) -> Body:
        """For events, whole ones: they go as soon as the client takes them. The stream is open."""
        return self._waiting if self.direct is None else self.direct

    async def open(self, events: bytes) -> None:
        """Sends the headers, if they are not out, then events or a comment; nothing once it is closed."""
        async with self._turn:
            if not (self._closed or self.opened):
                await self._head(events)
            elif not self._closed:
                self.body.write(events)
                self._spoke_at = self._clock()

    async def close(self, events: bytes = b"") -> None:
        """Sends the last of it."""
        async with self._turn:
            self._closed = True
            if not self.opened:
                await self._head()
            if self.direct is not None:
                self.direct.end(events)
                return
            await self._send({"type": "http.response.body", "body": self._waiting.data() + events, "more_body": False})

    async def keep_up(self) -> None:
        """Runs beside the writers, until it is cancelled."""
        while True:
            silent_s = self._clock() - self._spoke_at
            try:
                async with asyncio.timeout(max(0.0, self._ping_every_s - silent_s)):
                    await self._waiting.came.wait()
            except TimeoutError:
                if self._clock() - self._spoke_at >= self._ping_every_s:
                    await self.open(PING)
            else:
                await self.send_waiting()

    async def send_waiting(self) -> None:
        """Sends what was written and is to go by ASGI."""
        async with self._turn:
            data = self._waiting.data()
            if data and not self._closed:
                await self._send({"type": "http.response.body", "body": data, "more_body": True})
                self._waiting.sent()

    async def _head(self, events: bytes = b"") -> None:
        await self._send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        self.opened = True
        if self.is_direct:
            await self._send({"type": EXTENSION, "body": events, "use": self._use})
        else:
            self._waiting.write(events)

    def _use(self, body: StreamedBody) -> None:
        self.direct = body

    async def _send(self, message: Message) -> None:
        try:
            await self._send_message(message)
        except OSError as error:
            raise ClientLeft("the client left before the end of its stream") from error
        self._spoke_at = self._clock()


class _WaitingBody:
    """A `Body`: what waits to be sent by ASGI. `came` is set while there is any that nobody sends."""

    def __init__(self) -> None:
        self.on_full: Callable[[], None] | None = None
        self.on_room: Callable[[], None] | None = None
        self.came = asyncio.Event()
        self._waiting: list[bytes] = []
        self._sending = 0  # so many of them
        self._nbytes = 0

    @property
    def is_full(self) -> bool:
        return self._nbytes > _FULL_NBYTES

    def write(self, data: bytes) -> None:
        if data:
            was_full = self.is_full
            self._waiting.append(data)
            self._nbytes += len(data)
            self.came.set()
            if self.is_full and not was_full and self.on_full is not None:
                self.on_full()

    def data(self) -> bytes:
        """All of it. What is sent must be confirmed by `sent`: a sender may be cancelled, and another one goes on."""
        self._sending = len(self._waiting)
        self.came.clear()
        return b"".join(self._waiting)

    def sent(self) -> None:
        """What `data` has given is on its way."""
        was_full = self.is_full
        self._nbytes -= sum(map(len, self._waiting[: self._sending]))
        del self._waiting[: self._sending]
        if was_full and not self.is_full and self.on_room is not None:
            self.on_room()
