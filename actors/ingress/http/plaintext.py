"""Clients that speak plain HTTP to a port of TLS: they are told so, in words that they understand."""

from __future__ import annotations

import asyncio
import contextlib
import socket

# The type of the record that begins a handshake (RFC 8446, section 5.1). No HTTP request begins with it.
_HANDSHAKE = b"\x16"
# As much of a request as is taken in, so that the answer to it is not lost in a reset.
_REQUEST_NBYTES = 1 << 16
_TEXT = b"This port speaks https: ask for https:// in place of http://.\n"
_ANSWER = (
    b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-type: text/plain; charset=utf-8\r\n"
    b"content-length: %d\r\n\r\n%b" % (len(_TEXT), _TEXT)
)


class PlainText(ConnectionError):
    """What came in first was no TLS."""


async def check_for_tls(connection: socket.socket) -> None:
    """Waits for the first byte, which stays to be read. Raises PlainText, after an answer, if it begins no handshake.

    Raises ConnectionError where the client leaves without a byte. The connection stays open.
    """
    await _readable(connection)
    first = connection.recv(1, socket.MSG_PEEK)
    if not first:
        raise ConnectionAbortedError("the client left before it had said anything")
    if first != _HANDSHAKE:
        with contextlib.suppress(OSError):
            connection.recv(_REQUEST_NBYTES)
            connection.send(_ANSWER)
            connection.shutdown(socket.SHUT_WR)
        raise PlainText("the client does not speak TLS")


async def _readable(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(connection, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(connection)
