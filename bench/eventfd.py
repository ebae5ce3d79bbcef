"""A bare eventfd each way: the floor under everything that sleeps. It carries the checksum and no payload."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, Self

from .contestant import Mode, Payload, Seats, checksum
from .echo import EchoProcess, Order


class Eventfd:
    name = "eventfd"
    title = "eventfd, no payload"
    modes: tuple[Mode, ...] = (Mode.PARKED,)

    def __init__(self, seats: Seats, sizes: Iterable[int]) -> None:  # noqa: ARG002 - nothing of any size
        self._descriptors = [os.eventfd(0, os.EFD_CLOEXEC) for _ in range(2)]
        self._there, self._back = self._descriptors
        self._echo = EchoProcess("eventfd", seats.echo, {"descriptors": self._descriptors}, self._descriptors)

    @property
    def pid(self) -> int:
        return self._echo.pid

    def begin(self, mode: Mode, nbytes: int, trips: int) -> None:
        self._echo.order(mode, nbytes, trips)

    def trip(self, payload: Payload) -> int:
        os.eventfd_write(self._there, checksum(payload) + 1)  # a read waits while the value is 0
        return os.eventfd_read(self._back) - 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *others: Any) -> None:
        self._echo.close(now=kind is not None)
        for each in self._descriptors:
            os.close(each)


def serve(orders: Iterable[Order], details: dict[str, Any]) -> None:
    """The echo."""
    there, back = details["descriptors"]
    for order in orders:
        for _ in range(order.trips):
            os.eventfd_write(back, os.eventfd_read(there))
