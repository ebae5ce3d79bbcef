"""The first byte of a connection tells whether a handshake begins."""

from __future__ import annotations

import contextlib
import socket

from .outcome import NotTLS

# The type of the record that begins a handshake (RFC 8446, section 5.1). No HTTP request begins with it.
_HANDSHAKE = b"\x16"
# As much of a request as is taken in, so that the answer to it is not lost in a reset.
_REQUEST_NBYTES = 1 << 16
_TEXT = b"This port speaks https: ask for https:// in place of http://.\n"
_ANSWER = (
    b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-type: text/plain; charset=utf-8\r\n"
    b"content-length: %d\r\n\r\n%b" % (len(_TEXT), _TEXT)
)


def check_hello(connection: socket.socket) -> None:
    """Looks at the first byte, which stays to be read. Raises ConnectionError if it begins no handshake, and
    BlockingIOError if it has not come.

    A client that speaks plain HTTP is told so, in words that it understands. The connection stays open.
    """
    first = connection.recv(1, socket.MSG_PEEK)
    if not first:
        raise ConnectionAbortedError("the client left before it had said anything")
    if first != _HANDSHAKE:
        with contextlib.suppress(OSError):
            connection.recv(_REQUEST_NBYTES)
            connection.send(_ANSWER)
            connection.shutdown(socket.SHUT_WR)
        raise NotTLS("the client does not speak TLS")
