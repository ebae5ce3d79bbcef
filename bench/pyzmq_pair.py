"""pyzmq: a PAIR socket at each end of an ipc address, frames copied."""

from __future__ import annotations

import os
import secrets
import struct
from collections.abc import Iterable
from typing import Any, Self

import numpy as np
import zmq

from .contestant import Mode, Payload, Seats, checksum
from .echo import EchoProcess, Order

_ANSWER = struct.Struct("<Q")


class PyzmqPair:
    name = "pyzmq"
    title = "pyzmq PAIR, ipc"
    modes: tuple[Mode, ...] = (Mode.HOT, Mode.PARKED)

    def __init__(self, seats: Seats, sizes: Iterable[int]) -> None:  # noqa: ARG002 - frames have any size
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.PAIR)
        self._socket.linger = 0
        # An abstract address: nothing stays behind in any folder, however this process ends.
        address = f"ipc://@slabwire-bench-{os.getpid()}-{secrets.token_hex(8)}"
        self._socket.bind(address)
        self._echo = EchoProcess("pyzmq_pair", seats.echo, {"address": address}, [])

    @property
    def pid(self) -> int:
        return self._echo.pid

    def begin(self, mode: Mode, nbytes: int, trips: int) -> None:
        self._echo.order(mode, nbytes, trips)

    def trip(self, payload: Payload) -> int:
        self._socket.send(payload.data)
        (answer,) = _ANSWER.unpack(self._socket.recv())
        return int(answer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *others: Any) -> None:
        self._echo.close(now=kind is not None)
        self._context.destroy(linger=0)


def serve(orders: Iterable[Order], details: dict[str, Any]) -> None:
    """The echo."""
    with zmq.Context() as context, context.socket(zmq.PAIR) as pair:
        pair.linger = 0
        pair.connect(details["address"])
        for order in orders:
            for _ in range(order.trips):
                pair.send(_ANSWER.pack(checksum(np.frombuffer(pair.recv(), np.uint8))))
