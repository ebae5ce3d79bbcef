"""What a worker hears from whoever runs it, and says to it: a ZeroMQ socket, or what stands in for one."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import msgpack
import zmq


class Orders(Protocol):
    """The worker's end."""

    def get(self, option: int) -> Any: ...

    def recv(self) -> bytes: ...

    def send(self, packed: bytes) -> Any: ...


class OwnOrders:
    """For a worker in the process of whoever runs it. `reported(message)` is told what it says. Any thread may tell."""

    def __init__(self, reported: Callable[[dict[str, Any]], None]) -> None:
        self._reported = reported
        self._waiting: deque[bytes] = deque()
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def tell(self, order: dict[str, Any]) -> None:
        self._waiting.append(msgpack.packb(order))
        os.eventfd_write(self._bell, 1)

    def get(self, option: int) -> int:
        """The two options that a worker asks of a socket."""
        if option == zmq.FD:
            return self._bell
        return zmq.POLLIN if self._waiting else 0

    def recv(self) -> bytes:
        packed = self._waiting.popleft()
        if not self._waiting:
            os.eventfd_read(self._bell)
        return packed

    def send(self, packed: bytes) -> None:
        self._reported(msgpack.unpackb(packed))

    def close(self) -> None:
        os.close(self._bell)
