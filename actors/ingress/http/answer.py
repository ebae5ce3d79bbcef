"""One answer, as the application sends it, held to what HTTP/1 asks of it."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from typing import Any, Protocol

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from ..requests.streamed_body import EXTENSION
from .direct_body import DirectBody
from .flow import Flow, News
from .state import State

logger = logging.getLogger("slabwire")

# RFC 9110, sections 5.1 and 5.5: what a name is, and what no value holds, lest a proxy takes it for another line. The
# ends of our own lines are counted.
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_NO_VALUE = bytes({*range(0x20), 0x7F} - set(b"\t\r\n"))
_CLOSES, _CHUNKED = b"connection: close\r\n", b"transfer-encoding: chunked\r\n"
_GO_ON = b"HTTP/1.1 100 Continue\r\n\r\n"
# Their answers have no body (RFC 9110, section 6.4.1).
_BODILESS = (204, 304)
_FAILED = b"Internal Server Error"


class Answering(Protocol):
    """The connection whose request it is."""

    transport: asyncio.Transport
    flow: Flow
    state: State

    def leave_after_this(self) -> None:
        """The answer is the last one here."""

    def on_response_complete(self) -> None:
        """All of it has been sent."""

    def call_is_over(self, answer: Answer) -> None:
        """The application has returned. Where the answer goes on, nobody will ask any more what the request was."""


class Answer:
    """Runs an application for one request; stands for uvicorn's `RequestResponseCycle`.

    The head leaves with the first part of the body, in one write. An answer that begins before the request's body is
    whole says that the connection ends with it: what else may come of the body is nothing that anybody wants. The
    connection closes itself then. To HTTP/1.0 nothing is sent in chunks: there an answer of no known length ends with
    the connection.
    An application may have the body to write it itself, as `requests/streamed_body.py` says; `body` is that then.
    `is_left_open` where the application has returned before its end: it is the owner's of the body from then on.
    """

    __slots__ = (
        *("_connection", "_expects_100", "_head", "_length", "body", "chunked_encoding", "disconnected", "flow"),
        *("is_left_open", "keep_alive", "message_event", "more_body", "on_response", "received", "response_complete"),
        *("response_started", "scope", "transport"),
    )

    def __init__(self, connection: Answering, scope: dict[str, Any], *, keep_alive: bool, expects_100: bool) -> None:
        self.scope = scope
        self.transport, self.flow = connection.transport, connection.flow
        self.on_response: Callable[[], None] = connection.on_response_complete
        self.keep_alive = keep_alive
        self.disconnected = False
        # the request
        self.received = b""  # of its body, and not asked for yet
        self.more_body = True
        self.message_event = News()  # of it
        self._expects_100 = expects_100
        # the answer
        self.response_started = self.response_complete = self.is_left_open = False
        self.chunked_encoding = False
        self.body: DirectBody | None = None
        self._length: int | None = None  # that is still to come, if it is known
        self._head = b""  # until a part of the body goes with it
        self._connection: Answering | None = connection

    @property
    def is_unheard(self) -> bool:
        """Whether nothing of it has gone out."""
        return not self.response_started or bool(self._head)

    async def run(self, application: Callable[..., Any]) -> None:
        """What a task is made of. Whatever the application raises, the client has an answer, or an end."""
        try:
            await application(self.scope, self.receive, self.send)
            fault = self._fault()
            if fault:
                logger.error("an application returned %s", fault)
                self._fail()
        except BaseException as error:
            logger.error("an application failed", exc_info=error)
            self._fail()
        finally:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.call_is_over(self)
            if not self.is_left_open:
                self.on_response = _nobody
                self.body = None

    def _fault(self) -> str:
        """What is missing now that the application has returned."""
        if self.response_complete or self.disconnected:
            return ""
        if self.body is not None:
            self.is_left_open = True
            return ""
        return "before the end of its answer" if self.response_started else "without an answer"

    def _fail(self) -> None:
        if self.disconnected or self.response_complete:
            return
        if not self.is_unheard:
            self.transport.close()
            return
        self._length, self.chunked_encoding = None, False
        length = b"%d" % len(_FAILED)
        headers = [(b"content-type", b"text/plain"), (b"content-length", length), (b"connection", b"close")]
        self._begin(500, headers)
        self._go_on(_FAILED, more=False)

    # -- what the application calls ----------------------------------------------------------------------------------

    async def receive(self) -> dict[str, Any]:
        if self._expects_100 and not self.transport.is_closing():
            self._expects_100 = False
            self.transport.write(_GO_ON)
        if not (self.disconnected or self.response_complete):
            self.flow.resume_reading()
            await self.message_event.wait()
            self.message_event.clear()
        if self.disconnected or self.response_complete:
            return {"type": "http.disconnect"}
        body, self.received = self.received, b""
        return {"type": "http.request", "body": body, "more_body": self.more_body}

    async def send(self, message: Any) -> None:
        """Raises RuntimeError for what does not follow on what was sent."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        kind = message["type"]
        if self.response_complete or (kind == "http.response.start") is self.response_started:
            raise RuntimeError(f"an application sent {kind!r} where it does not belong")
        if kind == "http.response.start":
            self._begin(message["status"], message.get("headers", ()))
        elif kind == "http.response.body":
            self._go_on(message.get("body", b""), more=message.get("more_body", False))
        elif kind == EXTENSION:
            self._go_on(message.get("body", b""), more=True)
            self.body = DirectBody(self)
            message["use"](self.body)
        else:
            raise RuntimeError(f"an application sent {kind!r}, which is unknown here")

    # -- what travels ------------------------------------------------------------------------------------------------

    def _begin(self, status: int, headers: Any) -> None:
        connection = self._connection
        if connection is None:
            raise RuntimeError("an application began to answer when its call was over")
        fields, has_encoding, says_close = self._read(headers)
        self.response_started, self._expects_100 = True, False
        has_body = status not in _BODILESS and self.scope["method"] != "HEAD"
        if self.more_body:
            self.keep_alive = True  # else what still comes in would reset the connection
            connection.leave_after_this()
        if not says_close and (self.more_body or not self.keep_alive):
            fields += _CLOSES
        if not has_body:
            self._length = 0
        elif not has_encoding and self._length is None and self.scope["http_version"] != "1.0":
            self.chunked_encoding = True
            fields += _CHUNKED
        self._head = b"%b%b%b\r\n" % (STATUS_LINE[status], connection.state.date_line(), fields)

    def _read(self, headers: Any) -> tuple[bytes, bool, bool]:
        """The fields as they are sent; whether they say how the body is encoded, and that the connection ends."""
        parts: list[bytes] = []
        has_encoding = says_close = False
        for name, value in headers:
            if not _NAME.fullmatch(name):
                raise _no_header()
            name = name.lower()
            if name == b"content-length" and not has_encoding:
                self._length = int(value)
            elif name == b"transfer-encoding" and value.lower() == b"chunked":
                self._length, self.chunked_encoding, has_encoding = None, True, True
            elif name == b"connection" and b"close" in [each.strip() for each in value.lower().split(b",")]:
                self.keep_alive, says_close = False, True
            parts += (name, b": ", value, b"\r\n")
        fields = b"".join(parts)
        ends = {4 * fields.count(b"\r"), 4 * fields.count(b"\n"), len(parts)}
        if len(ends) > 1 or len(fields.translate(None, _NO_VALUE)) < len(fields):
            raise _no_header()
        return fields, has_encoding, says_close

    def _go_on(self, data: bytes, *, more: bool) -> None:
        if self.scope["method"] == "HEAD":
            data = b""
        elif self.chunked_encoding:
            # RFC 9112, section 7.1.
            data = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
            data = data if more else data + b"0\r\n\r\n"
        elif self._length is not None:
            self._length -= len(data)
            if self._length < 0:
                raise RuntimeError("an answer is longer than its Content-Length")
        head, self._head = self._head, b""
        if head or data:
            self.transport.write(head + data)
        if not more:
            if self._length:
                raise RuntimeError("an answer is shorter than its Content-Length")
            self.finish()

    def finish(self) -> None:
        """All of it has been written."""
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()


def _no_header() -> RuntimeError:
    return RuntimeError("an application sent a header with a name or a value that no header may have")


def _nobody() -> None:
    return
