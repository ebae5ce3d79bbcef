"""An HTTP server over TLS in this process, a client that writes bytes, and applications to serve."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from slabwire.actors.ingress.certificates.certificate import Certificate
from slabwire.actors.ingress.http.server import HttpServer
from slabwire.actors.ingress.tls.engine import terminator_for
from slabwire.runtime.dataplane.listeners import Listeners

GET = b"GET /%s HTTP/1.1\r\nhost: here\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nhost: here\r\ncontent-length: %d\r\n\r\n"
Application = Callable[[Any, Any, Any], Awaitable[None]]
Scene = Callable[[], Coroutine[Any, Any, None]]


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def say(self, *parts: bytes) -> None:
        self.writer.write(b"".join(parts))

    async def head(self) -> bytes:
        return await self.reader.readuntil(b"\r\n\r\n")

    async def answer(self) -> bytes:
        """The body of an answer that names its length."""
        lines = (await self.head()).split(b"\r\n")
        length = next(line for line in lines if line.startswith(b"content-length"))
        return await self.reader.readexactly(int(length.partition(b":")[2]))

    async def refusal(self) -> tuple[int, str]:
        """Status and message of an answer after which the server closes."""
        head, _, body = (await self.reader.read()).partition(b"\r\n\r\n")
        assert b"connection: close" in head
        return int(head.split()[1]), json.loads(body)["error"]["message"]

    async def ended(self) -> bool:
        return await self.reader.read() == b""

    async def leave(self) -> None:
        self.writer.transport.abort()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


def listen(address: str) -> socket.socket:
    """As `Actor.listen`; but nobody else holds the socket."""
    book = Listeners()
    listener = socket.socket(fileno=os.dup(book.open("here", 1, "here", address)))
    for held in book:
        held.listener.close()
    listener.setblocking(False)
    return listener


class Served:
    def __init__(self, server: HttpServer, certificate: Certificate) -> None:
        self.server = server
        self.context = ssl.create_default_context(cafile=certificate.public)
        self.clients: list[Client] = []

    async def connect(self, **options: Any) -> Client:
        place = ("127.0.0.1", self.server.port)
        streams = await asyncio.open_connection(*place, ssl=self.context, server_hostname="localhost", **options)
        self.clients.append(Client(*streams))
        return self.clients[-1]


@asynccontextmanager
async def serving(application: Application, certificate: Certificate, **options: Any) -> AsyncIterator[Served]:
    served = Served(HttpServer(application, terminator_for([certificate]), **options), certificate)
    served.server.start([listen("tcp://127.0.0.1:0")])
    try:
        yield served
    finally:
        for client in served.clients:
            await client.leave()
        await served.server.stop(10)
        assert served.server.stats()["connections"] == served.server.stats()["running"] == 0


async def until(condition: Callable[[], Any]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def run(scene: Scene) -> None:
    asyncio.run(scene())


async def send_answer(send: Any, body: bytes) -> None:
    length = b"%d" % len(body)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
    await send({"type": "http.response.body", "body": body})


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """The path, and how many bytes the body had."""
    nbytes, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        nbytes, more = nbytes + len(message["body"]), message["more_body"]
    await send_answer(send, scope["path"].encode() + b" %d" % nbytes)


class Streams:
    """Begins an endless answer, and ends it when it hears that nobody listens any more."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.left: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.begun.append(scope["path"])
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        assert (await receive())["type"] == "http.disconnect"
        self.left.append(scope["path"])


class Holds:
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.begun = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.begun += 1
        await self.go.wait()
        await echo(scope, receive, send)
