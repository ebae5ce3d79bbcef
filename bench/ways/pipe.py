"""multiprocessing.Pipe: bytes sent from an array, received into an array."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from ..harness.contestant import Payload, Seats, checksum
from ..harness.echo import Echoed, EchoProcess, Order

_NUMBER = struct.Struct("<Q")


class MultiprocessingPipe(Echoed):
    """For round trips and for a stream."""

    name = "pipe"
    title = "multiprocessing.Pipe"
    serve = "serve"

    def __init__(self, seats: Seats, sizes: Sequence[int] = ()) -> None:  # noqa: ARG002 - messages have any size
        self._near, far = Pipe()
        with far:
            details = {"fd": far.fileno()}
            super().__init__(EchoProcess(f"ways.pipe:{self.serve}", seats.echo, details, [far.fileno()]))

    def trip(self, payload: Payload) -> int:
        self._near.send_bytes(payload.data)
        (answer,) = _NUMBER.unpack(self._near.recv_bytes())
        return int(answer)

    def _let_go(self) -> None:
        self._near.close()


class PipeStream(MultiprocessingPipe):
    serve = "serve_stream"

    def carry(self, count: int) -> int:
        self._echo.order(_NUMBER.size, count, spinning=True)
        send, pack = self._near.send_bytes, _NUMBER.pack
        for number in range(1, count + 1):
            send(pack(number))
        (total,) = _NUMBER.unpack(self._near.recv_bytes())
        return int(total)


def serve(orders: Iterable[Order], details: dict[str, Any]) -> None:
    """The echo."""
    with Connection(details["fd"]) as connection:
        for order in orders:
            payload = np.empty(order.nbytes, np.uint8)
            for _ in range(order.trips):
                connection.recv_bytes_into(payload.data)
                connection.send_bytes(_NUMBER.pack(checksum(payload)))


def serve_stream(orders: Iterable[Order], details: dict[str, Any]) -> None:
    """Adds the numbers up."""
    with Connection(details["fd"]) as connection:
        receive, unpack = connection.recv_bytes, _NUMBER.unpack
        for order in orders:
            total = 0
            for _ in range(order.trips):
                total += unpack(receive())[0]
            connection.send_bytes(_NUMBER.pack(total))
