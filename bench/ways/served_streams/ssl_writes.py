"""The process of `ssl_write_loop.py`: a handshake and a request after the other, then one SSL_write a stream a step."""

from __future__ import annotations

import asyncio
import ctypes
import json
import socket
from pathlib import Path
from typing import NamedTuple

from ....actors.ingress.certificates.certificate import read_pair
from ....actors.ingress.tickets.memory import OwnKeys
from ....actors.ingress.tls.context import ServerContext
from ....actors.ingress.tls.libssl import RECORD_NBYTES, libssl
from ....actors.ingress.tls.tickets import Tickets
from ..many_streams.item import mark_of, stamp_of
from ..many_streams.pacing import BatchedPacing
from .asked import asked_by
from .narration import Narration

_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_STAMP = stamp_of(0)


class _Stream(NamedTuple):
    """What stands around the stamp of a step is made once."""

    connection: socket.socket
    ssl: int
    before: bytes
    after: bytes
    nbytes: int


class SslWrites(BatchedPacing):
    """Waits for each client within its handshake and its request, and for none within a step."""

    def __init__(self, chain: str, key: str, batches: int) -> None:
        super().__init__(batches)
        self._library = libssl()
        tickets = Tickets(self._library, OwnKeys(), b"")
        self._context = ServerContext(self._library, [read_pair(Path(chain), Path(key))], "1.3", tickets)
        self._buffer = ctypes.create_string_buffer(RECORD_NBYTES)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._streams: list[list[_Stream]] = [[] for _ in range(batches)]

    def listen(self) -> int:
        """At this port."""
        asyncio.get_running_loop().add_reader(self._listener, self._take)
        port: int = self._listener.getsockname()[1]
        return port

    def _take(self) -> None:
        connection, _ = self._listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        library = self._library
        ssl = library.SSL_new(self._context.pointer)
        library.SSL_set_fd(ssl, connection.fileno())
        library.SSL_set_accept_state(ssl)
        if library.SSL_do_handshake(ssl) != 1:
            connection.close()
            return
        request = json.loads(self._request(ssl).partition(b"\r\n\r\n")[2])
        narration, number = Narration(), asked_by(request["messages"][0]["content"]).number
        beginning = _HEAD + _chunk(narration.opening)
        library.SSL_write(ssl, beginning, len(beginning))
        connection.setblocking(False)
        token = _chunk(narration.before + json.dumps(_STAMP + mark_of(number)) + narration.after)
        before, after = token.split(_STAMP.encode())
        self._streams[number % len(self._streams)].append(_Stream(connection, ssl, before, after, len(token)))

    def _request(self, ssl: int) -> bytes:
        came = b""
        while not came.endswith(b"}"):
            nbytes = self._library.SSL_read(ssl, self._buffer, RECORD_NBYTES)
            came += ctypes.string_at(self._buffer, max(0, nbytes))
        return came

    def _step_batch(self, batch: int, stamp: str) -> None:
        now, write = stamp.encode(), self._library.SSL_write
        for connection, ssl, before, after, nbytes in self._streams[batch]:
            if write(ssl, before + now + after, nbytes) <= 0:
                connection.close()  # its socket is full, or nobody is there: the client sees the end


def _chunk(event: str) -> bytes:
    return b"%x\r\n%b\r\n" % (len(event), event.encode())
