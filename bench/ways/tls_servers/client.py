"""The client of all servers, a process of its own: OpenSSL by Python's `ssl`, which blocks."""

from __future__ import annotations

import socket
import ssl
from time import perf_counter
from typing import Any

from ....runtime.host.descriptors import require_free
from ...harness.contestant import BenchError
from .answer import LARGE_NBYTES, LARGE_PATH, SMALL, SMALL_PATH
from .keys import NAME

_HOST = "127.0.0.1"
_ANSWERS_WITHIN_S = 30.0
_SPARE_DESCRIPTORS = 32
_RECEIVE_NBYTES = 1 << 18
_END_OF_HEAD = b"\r\n\r\n"
_REQUEST = f"GET %s HTTP/1.1\r\nhost: {NAME}\r\n\r\n"
_SMALL_REQUEST, _LARGE_REQUEST = (_REQUEST % SMALL_PATH).encode(), (_REQUEST % LARGE_PATH).encode()


class Client:
    """In the process: what it is asked for."""

    def __init__(self, certificate: str) -> None:
        self._trust = ssl.create_default_context(cafile=certificate)
        self._trust.minimum_version = ssl.TLSVersion.TLSv1_3
        self._trust.set_alpn_protocols(["http/1.1"])
        self._idle: list[ssl.SSLSocket] = []

    def connections(self, port: int, count: int, resumes: bool) -> dict[str, Any]:
        """So many, one after the other, each with a small request; where it `resumes`, with the ticket of the last one.

        The time from the beginning of the connection to the first byte of the answer, of each; how many were resumed.
        """
        session = self._one(port, None)[2] if resumes else None
        took_us, resumed = [], 0
        for _ in range(count):
            took_s, reused, following = self._one(port, session)
            took_us.append(took_s * 1e6)
            resumed += reused
            session = following if resumes else None
        return {"took_us": took_us, "resumed": resumed}

    def _one(self, port: int, session: ssl.SSLSession | None) -> tuple[float, bool, ssl.SSLSession | None]:
        began = perf_counter()
        with self._connected(port, session) as secured:
            secured.sendall(_SMALL_REQUEST)
            first = secured.recv(_RECEIVE_NBYTES)
            took_s = perf_counter() - began
            _read_small(secured, first)
            return took_s, bool(secured.session_reused), secured.session

    def _connected(self, port: int, session: ssl.SSLSession | None = None) -> ssl.SSLSocket:
        plain = socket.create_connection((_HOST, port), timeout=_ANSWERS_WITHIN_S)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            return self._trust.wrap_socket(plain, server_hostname=NAME, session=session)
        except BaseException:
            plain.close()
            raise

    def requests(self, port: int, seconds: float, count: int) -> dict[str, float]:
        """Small requests for so many seconds on so many connections, one in flight on each: how many, and the time."""
        connections = [self._connected(port) for _ in range(count)]
        try:
            began, answered = perf_counter(), 0
            while (took_s := perf_counter() - began) < seconds:
                for each in connections:
                    each.sendall(_SMALL_REQUEST)
                for each in connections:
                    _read_small(each, each.recv(_RECEIVE_NBYTES))
                answered += count
            return {"requests": answered, "took_s": took_s}
        finally:
            for each in connections:
                each.close()

    def download(self, port: int) -> float:
        """The large answer, read and forgotten: seconds from the request to its end."""
        room = memoryview(bytearray(_RECEIVE_NBYTES))
        with self._connected(port) as secured:
            began = perf_counter()
            secured.sendall(_LARGE_REQUEST)
            came = b""
            while _END_OF_HEAD not in came:
                came += _something(secured.recv(_RECEIVE_NBYTES))
            nbytes = len(came) - came.index(_END_OF_HEAD) - len(_END_OF_HEAD)
            while nbytes < LARGE_NBYTES:
                received = secured.recv_into(room)
                nbytes += received
                if not received:
                    break
            took_s = perf_counter() - began
        if nbytes != LARGE_NBYTES:
            raise BenchError(f"{nbytes} bytes came of {LARGE_NBYTES}")
        return took_s

    def idle(self, port: int, count: int) -> None:
        """So many connections that stay, each after a small request."""
        require_free(count + _SPARE_DESCRIPTORS, f"a client with {count} connections")
        for _ in range(count):
            self._idle.append(self._connected(port))
            self._idle[-1].sendall(_SMALL_REQUEST)
            _read_small(self._idle[-1], self._idle[-1].recv(_RECEIVE_NBYTES))

    def leave(self) -> None:
        """Ends those that stayed."""
        for each in self._idle:
            each.close()
        self._idle.clear()


def _read_small(secured: ssl.SSLSocket, came: bytes) -> None:
    """The rest of an answer, of which so much has come. Raises BenchError if it is not what was asked for."""
    while not came.endswith(SMALL):
        came += _something(secured.recv(_RECEIVE_NBYTES), came)
    if not came.startswith(b"HTTP/1.1 200 "):
        raise BenchError(f"a request was answered {came.decode(errors='replace')!r}")


def _something(received: bytes, came: bytes = b"") -> bytes:
    if not received:
        raise BenchError(f"a connection has ended after {came.decode(errors='replace')!r}")
    return received
