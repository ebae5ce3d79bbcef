"""One answer, as the application sends it, held to what HTTP/1 asks of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from ..requests.streamed_body import EXTENSION
from .direct_body import DirectBody


class Answer:
    """Runs an application for one request.

    An answer that begins before the request's body is whole says that the connection ends with it: what else may come
    of the body is nothing that anybody wants. `on_early` is called then; it is for the connection to close itself.
    To HTTP/1.0 nothing is sent in chunks: there an answer of no known length ends with the connection.
    An application may have the body to write it itself, as `requests/streamed_body.py` says; `body` is that then.
    """

    def __init__(self, application: Any, cycle: RequestResponseCycle, on_early: Callable[[], None]) -> None:
        self.body: DirectBody | None = None
        self._application = application
        self._cycle = cycle
        self._on_early = on_early

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
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

        await self._application(scope, receive, send_held)

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
            self._on_early()


def _has_length(message: Any) -> bool:
    return any(name.lower() == b"content-length" for name, _ in message.get("headers", ()))
