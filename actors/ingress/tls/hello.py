"""The first record of a connection: whether a handshake begins, and whether all of it is there."""

from __future__ import annotations

import contextlib
import socket

from .outcome import NotTLS

# The type of the record that begins a handshake (RFC 8446, section 5.1). No HTTP request begins with it.
_HANDSHAKE = 0x16
# Type, version and length of a record.
_HEAD_NBYTES = 5
# A hello is not longer, where it has a key of X25519MLKEM768, too.
HELLO_NBYTES = 2048
_PEEK = int(socket.MSG_PEEK)
# As much of a request as is taken in, so that the answer to it is not lost in a reset.
_REQUEST_NBYTES = 1 << 16
_TEXT = b"This port speaks https: ask for https:// in place of http://.\n"
_ANSWER = (
    b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-type: text/plain; charset=utf-8\r\n"
    b"content-length: %d\r\n\r\n%b" % (len(_TEXT), _TEXT)
)


def check_hello(connection: socket.socket) -> int:
    """Looks at the first record, which stays to be read. Raises ConnectionError if it begins no handshake, and
    BlockingIOError if nothing has come.

    Gives 0, or how many bytes have to be there before it is whole. A client that speaks plain HTTP is told so, in words
    that it understands. The connection stays open.
    """
    hello = connection.recv(HELLO_NBYTES, _PEEK)
    if not hello:
        raise ConnectionAbortedError("the client left before it had said anything")
    if hello[0] != _HANDSHAKE:
        with contextlib.suppress(OSError):
            connection.recv(_REQUEST_NBYTES)
            connection.send(_ANSWER)
            connection.shutdown(socket.SHUT_WR)
        raise NotTLS("the client does not speak TLS")
    if len(hello) < _HEAD_NBYTES:
        return _HEAD_NBYTES
    nbytes = min(_HEAD_NBYTES + int.from_bytes(hello[3:5], "big"), HELLO_NBYTES)
    return nbytes if len(hello) < nbytes else 0
