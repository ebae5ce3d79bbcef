"""Opens streams: a TLS connection each, its request sent, the beginning of its answer read."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from ...harness.contestant import BenchError
from .asked import Asked
from .server import MODEL, PATH

# OpenSSL lets go of the interpreter while it computes. With four at once a stream takes half as long again as with 32,
# and both sides more CPU time.
_AT_ONCE = 32
_ANSWERS_WITHIN_S = 60.0
_HOST, _NAME = "127.0.0.1", "localhost"
_FIRST_CHUNK_ENDS = b"\n\n\r\n"
_RECEIVE_NBYTES = 1 << 16


def trust_in(certificate: str) -> ssl.SSLContext:
    """TLS 1.3 and HTTP/1.1 alone."""
    trust = ssl.create_default_context(cafile=certificate)
    trust.minimum_version = ssl.TLSVersion.TLSv1_3
    trust.set_alpn_protocols(["http/1.1"])
    return trust


def connect(trust: ssl.SSLContext, port: int) -> ssl.SSLSocket:
    """A connection to a server of this machine. Raises OSError."""
    with ExitStack() as stack:
        plain = stack.enter_context(socket.create_connection((_HOST, port), timeout=_ANSWERS_WITHIN_S))
        secured = trust.wrap_socket(plain, server_hostname=_NAME)
        stack.pop_all()
    return secured


def open_all(trust: ssl.SSLContext, port: int, count: int) -> Iterator[ssl.SSLSocket]:
    """So many streams, by number, whose answers have all begun: nothing more comes before the first step.

    Raises BenchError with what the server says instead.
    """
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        yield from threads.map(lambda number: _opened(trust, port, number), range(count))


def _opened(trust: ssl.SSLContext, port: int, number: int) -> ssl.SSLSocket:
    with ExitStack() as stack:
        try:
            secured = stack.enter_context(connect(trust, port))
            secured.sendall(request_for(Asked(number)))
            _read_beginning(secured, number)
        except OSError as error:
            raise BenchError(f"stream {number} could not be opened: {error or type(error).__name__}") from error
        secured.setblocking(False)
        stack.pop_all()
    return secured


def request_for(asked: Asked) -> bytes:
    """A whole request."""
    message = {"role": "user", "content": asked.content()}
    body = json.dumps({"model": MODEL, "messages": [message], "stream": True}).encode()
    head = (
        f"POST {PATH} HTTP/1.1",
        f"host: {_NAME}",
        "content-type: application/json",
        f"content-length: {len(body)}",
        "",
        "",
    )
    return "\r\n".join(head).encode() + body


def _read_beginning(secured: ssl.SSLSocket, number: int) -> None:
    """The head, and the chunk that says who speaks."""
    came = b""
    while not came.endswith(_FIRST_CHUNK_ENDS):
        received = secured.recv(_RECEIVE_NBYTES)
        came += received
        if not received or not came.startswith(b"HTTP/1.1 200 "[: len(came)]):
            raise BenchError(f"stream {number} was answered {came.decode(errors='replace')!r}")
