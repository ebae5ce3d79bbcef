"""What names a request in responses and logs: `x-request-id`, and the trace of W3C Trace Context."""

from __future__ import annotations

import re
import secrets
from typing import NamedTuple

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SAFE = re.compile(r"[A-Za-z0-9._:-]{1,128}")
# version, trace id, span id, flags; W3C Trace Context, section 3.2. Of later versions the same four are read.
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})(-.*)?")


class Names(NamedTuple):
    """What a request is called in logs. `trace` is the id of its client's trace, "" without one."""

    request: str
    trace: str


class Identified:
    """Names each request to the application inside, and each of its responses.

    A client's `x-request-id` is taken where it is of 1 to 128 safe characters, else one is made; its `traceparent`
    comes back with a span of this server.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        names = names_of(headers)
        trace = names.get("traceparent", "").split("-")
        scope.setdefault("state", {})["names"] = Names(names["x-request-id"], trace[1] if len(trace) > 1 else "")
        added = [(name.encode(), value.encode()) for name, value in names.items()]

        async def send_named(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *added]
            await send(message)

        await self._app(scope, receive, send_named)


def names_of(headers: Headers) -> dict[str, str]:
    """The headers that a response bears to name its request."""
    given = headers.get("x-request-id", "")
    names = {"x-request-id": given if _SAFE.fullmatch(given) else f"req_{secrets.token_hex(16)}"}
    trace = _TRACEPARENT.fullmatch(headers.get("traceparent", ""))
    if trace is not None:
        names["traceparent"] = f"00-{trace[1]}-{secrets.token_hex(8)}-{trace[2]}"
    return names


def request_id(scope: Scope) -> str:
    """The id that `Identified` gave to the request."""
    return names_in(scope).request


def names_in(scope: Scope) -> Names:
    """All that `Identified` has called the request."""
    names: Names = scope["state"]["names"]
    return names
