"""The least that can answer: a protocol of asyncio's that looks for the end of a request's head, in a process."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path

from ....actors.ingress.certificates.certificate import read_pair
from ....actors.ingress.tls.entrance import Entrance
from ....actors.ingress.tls.libssl import libssl
from ....actors.ingress.tls.libssl_terminator import LibsslTerminator
from .answer import LARGE_NBYTES, LARGE_PATH, PIECE, PUSHED, SMALL, SMALL_TYPE

_HOST, _BACKLOG = "127.0.0.1", 4096
_PUSHES_A_TURN = 50
_END_OF_HEAD = b"\r\n\r\n"
_HEAD = "HTTP/1.1 200 OK\r\ncontent-type: %s\r\ncontent-length: %d\r\n\r\n"
_SMALL = (_HEAD % (SMALL_TYPE, len(SMALL))).encode() + SMALL
_LARGE_HEAD = (_HEAD % ("application/octet-stream", LARGE_NBYTES)).encode()
_ASKS_FOR_LARGE = f"GET {LARGE_PATH} ".encode()


class Answering(asyncio.Protocol):
    """One connection."""

    def __init__(self, every: set[Answering]) -> None:
        self._all = every  # that are open
        self._transport: asyncio.Transport
        self._rest = b""
        self._to_send = 0
        self._is_paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self._all.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._all.discard(self)

    def push(self, data: bytes) -> None:
        self._transport.write(data)

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        while (end := data.find(_END_OF_HEAD)) >= 0:
            if data.startswith(_ASKS_FOR_LARGE):
                self._transport.write(_LARGE_HEAD)
                self._to_send += LARGE_NBYTES
                self._send()
            else:
                self._transport.write(_SMALL)
            data = data[end + len(_END_OF_HEAD) :]
        self._rest = data

    def pause_writing(self) -> None:
        self._is_paused = True

    def resume_writing(self) -> None:
        self._is_paused = False
        self._send()

    def _send(self) -> None:
        while self._to_send and not self._is_paused:
            self._transport.write(PIECE)
            self._to_send -= len(PIECE)


class Echo:
    """In the process: `engine` is "libssl" for ours, or "stdlib" for what asyncio does by itself."""

    def __init__(self, engine: str, chain: str, key: str) -> None:
        self._engine, self._chain, self._key = engine, chain, key
        self._entrance: Entrance | None = None
        self._server: asyncio.Server | None = None
        self._open: set[Answering] = set()

    async def listen(self, port: int) -> int:
        """At that port, which others may share; 0 takes a free one. Gives the port."""
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((_HOST, port))
        listener.listen(_BACKLOG)
        listener.setblocking(False)
        if self._engine == "stdlib":
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            context.load_cert_chain(self._chain, self._key)
            loop = asyncio.get_running_loop()
            self._server = await loop.create_server(self._protocol, sock=listener, ssl=context)
        else:
            certificate = read_pair(Path(self._chain), Path(self._key))
            terminator = LibsslTerminator(libssl(), [certificate])
            self._entrance = Entrance(terminator, self._protocol, lambda: None, lambda _: None)
            self._entrance.open([listener])
        return int(listener.getsockname()[1])

    def _protocol(self) -> Answering:
        return Answering(self._open)

    async def push(self, count: int) -> None:
        """Sends so many small pieces, by all connections in turn."""
        some = list(self._open)
        for number in range(count):
            some[number % len(some)].push(PUSHED)
            if number % _PUSHES_A_TURN == 0:
                await asyncio.sleep(0)
