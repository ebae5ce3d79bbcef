"""multiprocessing.Pipe: bytes sent from an array, received into an array."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, Self

import numpy as np

from .contestant import Mode, Payload, Seats, checksum
from .echo import EchoProcess, Order

_ANSWER = struct.Struct("<Q")


class MultiprocessingPipe:
    name = "pipe"
    title = "multiprocessing.Pipe"
    modes: tuple[Mode, ...] = (Mode.HOT, Mode.PARKED)

    def __init__(self, seats: Seats, sizes: Iterable[int]) -> None:  # noqa: ARG002 - messages have any size
        self._near, far = Pipe()
        with far:
            self._echo = EchoProcess("pipe", seats.echo, {"fd": far.fileno()}, [far.fileno()])

    @property
    def pid(self) -> int:
        return self._echo.pid

    def begin(self, mode: Mode, nbytes: int, trips: int) -> None:
        self._echo.order(mode, nbytes, trips)

    def trip(self, payload: Payload) -> int:
        self._near.send_bytes(payload.data)
        (answer,) = _ANSWER.unpack(self._near.recv_bytes())
        return int(answer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *others: Any) -> None:
        self._echo.close(now=kind is not None)
        self._near.close()


def serve(orders: Iterable[Order], details: dict[str, Any]) -> None:
    """The echo."""
    with Connection(details["fd"]) as connection:
        for order in orders:
            payload = np.empty(order.nbytes, np.uint8)
            for _ in range(order.trips):
                connection.recv_bytes_into(payload.data)
                connection.send_bytes(_ANSWER.pack(checksum(payload)))
