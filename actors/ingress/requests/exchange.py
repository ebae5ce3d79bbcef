"""One request over ASGI, and its answer."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from .asgi import Message, Receive, Scope, Send
from .problems import Problem
from .request_id import Names, names_of

JSON = "application/json"
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


class Exchange:
    """What each endpoint is given. Whatever it answers bears the request's names.

    `has_begun`: whether the head of an answer was sent, so that no other can be given.
    """

    __slots__ = ("_fields", "_naming", "_send", "has_begun", "names", "receive", "scope")

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.receive = receive
        self.has_begun = False
        self._send = send
        # Of fields of one name the first counts.
        self._fields: dict[bytes, bytes] = dict(reversed([*scope["headers"]]))
        self.names: Names
        self.names, self._naming = names_of(self._fields)

    def header(self, name: bytes) -> str | None:
        """A field of the request; `name` in lower case."""
        value = self._fields.get(name)
        return None if value is None else value.decode("latin-1")

    async def send(self, message: Message) -> None:
        """As ASGI has it."""
        if message["type"] == "http.response.start":
            self.has_begun = True
            message["headers"] = [*message.get("headers", ()), *self._naming]
        await self._send(message)

    async def answer(
        self, body: bytes, status: int = 200, kind: str = JSON, headers: Iterable[tuple[str, str]] = ()
    ) -> None:
        """A whole answer. `kind`: its Content-Type."""
        fields = [(b"content-length", b"%d" % len(body)), (b"content-type", kind.encode())]
        for name, value in headers:
            fields.append((name.encode(), value.encode("latin-1")))
        fields += self._naming
        self.has_begun = True
        await self._send({"type": "http.response.start", "status": status, "headers": fields})
        await self._send({"type": "http.response.body", "body": body})

    async def answer_json(self, value: Mapping[str, Any], status: int = 200) -> None:
        await self.answer(_encode(value).encode(), status)

    async def answer_problem(self, problem: Problem) -> None:
        await self.answer(problem.body(), problem.status, headers=problem.headers.items())
