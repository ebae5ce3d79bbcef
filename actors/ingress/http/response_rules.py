"""One answer, as the application sends it, held to what HTTP/1 asks of it."""

from __future__ import annotations

from typing import Any, Protocol

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from ..requests.streamed_body import EXTENSION
from .direct_body import DirectBody


class Answering(Protocol):
    """The connection whose request it is."""

    def leave_after_this(self) -> None:
        """The answer is the last one here."""

    def forget_request(self, cycle: RequestResponseCycle) -> None:
        """Nobody will ask any more what the request was."""


class Answer:
    """Runs an application for one request.

    An answer that begins before the request's body is whole says that the connection ends with it: what else may come
    of the body is nothing that anybody wants. The connection closes itself then.
    To HTTP/1.0 nothing is sent in chunks: there an answer of no known length ends with the connection.
    An application may have the body to write it itself, as `requests/streamed_body.py` says; `body` is that then.
    `is_left_open` where the application has returned before its end: it is the owner's of the body from then on.
    """

    __slots__ = ("_connection", "_cycle", "body", "is_left_open")

    def __init__(self, cycle: RequestResponseCycle, connection: Answering) -> None:
        self.body: DirectBody | None = None
        self.is_left_open = False
        self._cycle = cycle
        self._connection = connection

    async def run_asgi(self, application: Any) -> None:
        """What uvicorn makes a task of: its cycle's own, after which nothing may be left of the call."""
        cycle = self._cycle
        on_response = cycle.on_response

        async def run(scope: Any, receive: Any, send: Any) -> None:
            await self._run(application, scope, receive, send)
            if self.body is not None and self.body.is_open:
                self.is_left_open = True
                cycle.disconnected = True  # or uvicorn would miss the end of the body

        await cycle.run_asgi(run)
        if self.is_left_open:
            cycle.disconnected, cycle.on_response = False, on_response
            self._connection.forget_request(cycle)

    async def _run(self, application: Any, scope: Any, receive: Any, send: Any) -> None:
        endless = False
        if scope["method"] != "HEAD":
            scope = {**scope, "extensions": {**scope.get("extensions", {}), EXTENSION: {}}}

        async def send_held(message: Any) -> None:
            nonlocal endless
            if message["type"] == EXTENSION:
                self.body = DirectBody(self._cycle)
                message["use"](self.body)
                return
            if message["type"] == "http.response.start":
                endless = scope["http_version"] == "1.0" and not _has_length(message)
                await self._begin(message, send, endless)
                return
            if endless:
                # So much is expected, and then no more: uvicorn takes it for the end whenever it comes.
                self._cycle.expected_content_length = len(message.get("body", b""))
            await send(message)

        await application(scope, receive, send_held)

    async def _begin(self, message: Any, send: Any, endless: bool) -> None:
        cycle = self._cycle
        early = cycle.more_body
        if early:
            cycle.keep_alive = False  # which makes uvicorn say so
        if endless:
            cycle.chunked_encoding = False
        await send(message)
        if early:
            cycle.keep_alive = True  # uvicorn would close at once, and what still comes in would reset the connection
            self._connection.leave_after_this()


def _has_length(message: Any) -> bool:
    return any(name.lower() == b"content-length" for name, _ in message.get("headers", ()))
