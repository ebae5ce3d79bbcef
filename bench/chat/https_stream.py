"""A light client of OpenAI's interface over TLS: what it costs itself must not hide what it measures.

OpenAI's own SDK takes longer for a chunk than the whole service does. This one notes when a chunk came, and reads what
it says when the answer is complete.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Iterable, Sequence
from time import monotonic, monotonic_ns
from typing import Any
from urllib.parse import urlsplit

from ...actors.ingress.requests.together import all_of
from ..harness.answers import Answer
from ..harness.contestant import BenchError
from ..harness.conversations import Messages

_DONE = b"data: [DONE]"
_LARGEST_ERROR_NBYTES = 1 << 16

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class HttpsStream:
    """`url` and `certificate` as the ingress describes them. Connections are kept open from request to request."""

    name = "https"
    title = "HTTPS"

    def __init__(self, url: str, certificate: str, model: str) -> None:
        self._place = urlsplit(url)
        self._trust = ssl.create_default_context(cafile=certificate)
        self._trust.set_alpn_protocols(["http/1.1"])
        self._model = model
        self._idle: list[Connection] = []

    async def ask(self, conversations: Sequence[Messages], max_tokens: int, temperature: float) -> list[Answer]:
        """All at once, each over a connection of its own that is open before the clock runs. Raises BenchError."""
        try:
            self._drop_closed()
            while len(self._idle) < len(conversations):
                host, port = self._place.hostname, self._place.port
                self._idle.append(await asyncio.open_connection(host, port, ssl=self._trust))
            return await all_of(self._ask(each, max_tokens, temperature) for each in conversations)
        except (OSError, EOFError) as error:
            raise BenchError(
                f"the connection to {self._place.geturl()} broke: {error or type(error).__name__}"
            ) from error

    def _drop_closed(self) -> None:
        """The server closes connections that are idle for long, as one is while another contestant has its visit."""
        closed = [each for each in self._idle if each[0].at_eof()]
        for connection in closed:
            self._idle.remove(connection)
            connection[1].close()

    async def _ask(self, messages: Messages, max_tokens: int, temperature: float) -> Answer:
        body = {
            "model": self._model,
            "messages": messages,
            "max_tokens": max_tokens,
            "temperature": temperature,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        reader, writer = connection = self._idle.pop()
        try:
            began_ns = monotonic_ns()
            writer.write(self._request(json.dumps(body).encode()))
            await _check_head(reader)
            chunks = [(monotonic_ns(), chunk) async for chunk in _chunks(reader)]
        except BaseException:
            writer.close()
            raise
        self._idle.append(connection)
        return _answer(began_ns, chunks)

    async def moments(self, messages: Messages, max_tokens: int) -> AsyncIterator[float]:
        """When each chunk of an answer came, on `time.monotonic`'s clock, over a connection of its own."""
        reader, writer = await asyncio.open_connection(self._place.hostname, self._place.port, ssl=self._trust)
        try:
            body = {"model": self._model, "messages": messages, "max_tokens": max_tokens, "stream": True}
            writer.write(self._request(json.dumps(body).encode()))
            await _check_head(reader)
            async for _ in _chunks(reader):
                yield monotonic()
        finally:
            writer.close()

    def _request(self, body: bytes) -> bytes:
        head = (
            "POST /v1/chat/completions HTTP/1.1",
            f"host: {self._place.netloc}",
            "content-type: application/json",
            f"content-length: {len(body)}",
            "",
            "",
        )
        return "\r\n".join(head).encode() + body

    async def close(self) -> None:
        """Closes the connections; none may be in use."""
        for _, writer in self._idle:
            writer.close()
        for _, writer in self._idle:
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def _check_head(reader: asyncio.StreamReader) -> None:
    """Reads an answer's head. Raises BenchError with what the server says instead of a stream."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    if head.startswith("http/1.1 200 ") and "transfer-encoding: chunked" in head:
        return
    said = await reader.read(_LARGEST_ERROR_NBYTES)
    raise BenchError(f"the ingress answered {head.splitlines()[0]!r}: {said.decode(errors='replace')}")


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """The chunks of a body (RFC 9112, section 7.1)."""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        yield (await reader.readexactly(size + 2))[:-2]
    await reader.readexactly(2)


def _answer(began_ns: int, chunks: Iterable[tuple[int, bytes]]) -> Answer:
    """Each chunk holds whole events."""
    pieces, texts, usage, done = [], [], None, False
    for moment, chunk in chunks:
        for event in chunk.split(b"\n\n"):
            done = done or event == _DONE
            said = _said(event)
            usage = said.get("usage") or usage
            for choice in said.get("choices", ()):
                if text := choice["delta"].get("content"):
                    pieces.append(moment)
                    texts.append(text)
    if not done or usage is None:
        raise BenchError("the ingress ended a stream before it was complete")
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    return Answer(began_ns, pieces, "".join(texts), usage["prompt_tokens"], usage["completion_tokens"], cached)


def _said(event: bytes) -> dict[str, Any]:
    """An event's document; {} for a comment, and for what ends the stream."""
    if not event.startswith(b"data: ") or event == _DONE:
        return {}
    said: dict[str, Any] = json.loads(event.removeprefix(b"data: "))
    if "error" in said:
        raise BenchError(f"the ingress ended a stream: {said['error'].get('message', said['error'])}")
    return said
