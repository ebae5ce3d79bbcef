"""A bare eventfd each way: the floor under everything that sleeps. It carries the checksum and no payload."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

from ..harness.contestant import Payload, Seats, checksum
from ..harness.echo import Echoed, EchoProcess, Order


class Eventfd(Echoed):
    name = "eventfd"
    title = "eventfd, bare"

    def __init__(self, seats: Seats, sizes: Sequence[int]) -> None:  # noqa: ARG002 - nothing of any size
        self._descriptors = [os.eventfd(0, os.EFD_CLOEXEC) for _ in range(2)]
        self._there, self._back = self._descriptors
        details = {"descriptors": self._descriptors}
        super().__init__(EchoProcess("ways.eventfd:serve", seats.echo, details, self._descriptors))

    def trip(self, payload: Payload) -> int:
        os.eventfd_write(self._there, checksum(payload) + 1)  # a read waits while the value is 0
        return os.eventfd_read(self._back) - 1

    def _let_go(self) -> None:
        for each in self._descriptors:
            os.close(each)


def serve(orders: Iterable[Order], details: dict[str, Any]) -> None:
    """The echo."""
    there, back = details["descriptors"]
    for order in orders:
        for _ in range(order.trips):
            os.eventfd_write(back, os.eventfd_read(there))
