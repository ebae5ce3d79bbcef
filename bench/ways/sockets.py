"""pyzmq over an ipc address, frames copied: PAIR for round trips, PUSH and PULL for a stream."""

from __future__ import annotations

import os
import secrets
import struct
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import zmq

from ..harness.contestant import Payload, Seats, checksum
from ..harness.echo import Echoed, EchoProcess, Order

_NUMBER = struct.Struct("<Q")


def _address() -> str:
    """Abstract: nothing stays behind in any folder, however this process ends."""
    return f"ipc://@slabwire-bench-{os.getpid()}-{secrets.token_hex(8)}"


class PyzmqPair(Echoed):
    name = "pyzmq"
    title = "pyzmq PAIR, ipc"

    def __init__(self, seats: Seats, sizes: Sequence[int]) -> None:  # noqa: ARG002 - frames have any size
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.PAIR)
        address = _address()
        self._socket.bind(address)
        super().__init__(EchoProcess("ways.sockets:serve", seats.echo, {"address": address}, []))

    def trip(self, payload: Payload) -> int:
        self._socket.send(payload.data)
        (answer,) = _NUMBER.unpack(self._socket.recv())
        return int(answer)

    def _let_go(self) -> None:
        self._context.destroy(linger=0)


class PyzmqPush(Echoed):
    name = "pyzmq"
    title = "pyzmq PUSH and PULL, ipc"

    def __init__(self, seats: Seats) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._numbers, self._sums = (self._context.socket(each) for each in (zmq.PUSH, zmq.PULL))
        addresses = [_address(), _address()]
        self._numbers.bind(addresses[0])
        self._sums.bind(addresses[1])
        super().__init__(EchoProcess("ways.sockets:serve_stream", seats.echo, {"addresses": addresses}, []))

    def carry(self, count: int) -> int:
        self._echo.order(_NUMBER.size, count, spinning=True)
        send, pack = self._numbers.send, _NUMBER.pack
        for number in range(1, count + 1):
            send(pack(number))
        (total,) = _NUMBER.unpack(self._sums.recv())
        return int(total)

    def _let_go(self) -> None:
        self._context.destroy(linger=0)


def serve(orders: Iterable[Order], details: dict[str, Any]) -> None:
    """The echo."""
    with zmq.Context() as context, context.socket(zmq.PAIR) as pair:
        pair.linger = 0
        pair.connect(details["address"])
        for order in orders:
            for _ in range(order.trips):
                pair.send(_NUMBER.pack(checksum(np.frombuffer(pair.recv(), np.uint8))))


def serve_stream(orders: Iterable[Order], details: dict[str, Any]) -> None:
    """Adds the numbers up."""
    with zmq.Context() as context, context.socket(zmq.PULL) as numbers, context.socket(zmq.PUSH) as sums:
        sums.linger = 0
        numbers.connect(details["addresses"][0])
        sums.connect(details["addresses"][1])
        receive, unpack = numbers.recv, _NUMBER.unpack
        for order in orders:
            total = 0
            for _ in range(order.trips):
                total += unpack(receive())[0]
            sums.send(_NUMBER.pack(total))
