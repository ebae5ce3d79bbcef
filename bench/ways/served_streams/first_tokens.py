"""A process that asks for short answers on open connections, beside the streams, and times their first tokens."""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from time import monotonic_ns

from ...harness.contestant import BenchError
from .asked import Asked
from .opening import connect, request_for, trust_in

# More than ever wait at a time: a request that has no connection would wait for another's answer.
_CONNECTIONS = 32
_RECEIVE_NBYTES = 1 << 14
_END = b"[DONE]\n\n"
_LAST_CHUNK = b"0\r\n\r\n"


class FirstTokens:
    """In the process: what it is asked for, in this order."""

    def __init__(self, certificate: str) -> None:
        self._trust = trust_in(certificate)
        self._idle: list[ssl.SSLSocket] = []
        self._threads = ThreadPoolExecutor(_CONNECTIONS)
        self._number = 0

    def open(self, port: int, first: int) -> None:
        """Opens the connections, each with an answer; answers are numbered from `first` on. Raises BenchError."""
        self._number = first
        for _ in range(_CONNECTIONS):
            connection = connect(self._trust, port)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _ask(connection, self._next())
            self._idle.append(connection)

    async def ask(self, a_second: float, seconds: float) -> list[float]:
        """So many requests at chance moments, as those of people come: how long each one's first token took, in
        microseconds. Raises BenchError.
        """
        loop, dice = asyncio.get_running_loop(), random.Random(1)
        moments = sorted(dice.uniform(0, seconds) for _ in range(round(a_second * seconds)))
        began, asking = loop.time(), []
        for moment in moments:
            await asyncio.sleep(began + moment - loop.time())
            asking.append(loop.run_in_executor(self._threads, self._time_one))
        return await asyncio.gather(*asking)

    def _time_one(self) -> float:
        if not self._idle:
            raise BenchError(f"{_CONNECTIONS} short answers have not ended: the server does not keep up")
        connection = self._idle.pop(0)  # the one that has rested longest
        took_us = _ask(connection, self._next())
        self._idle.append(connection)
        return took_us

    def _next(self) -> Asked:
        self._number += 1
        return Asked(self._number, briefly=True)


def _ask(connection: ssl.SSLSocket, asked: Asked) -> float:
    """Until the first token has come, in microseconds; the rest of the answer is read, too."""
    came, first_ns = b"", 0
    request, began_ns = request_for(asked), monotonic_ns()
    connection.sendall(request)
    while not came.endswith(_LAST_CHUNK):
        received = connection.recv(_RECEIVE_NBYTES)
        if not received:
            raise BenchError(f"a short answer ended as {came.decode(errors='replace')!r}")
        came += received
        if not first_ns and b" %06d" % asked.number in came:
            first_ns = monotonic_ns()
    if not (first_ns and came.startswith(b"HTTP/1.1 200 ") and _END in came):
        raise BenchError(f"a short answer was {came.decode(errors='replace')!r}")
    return (first_ns - began_ns) / 1e3
