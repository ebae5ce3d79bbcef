"""The line between a worker and its supervisor, or the engine in its own process: orders come by it, reports go."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable

import zmq

from ..control.worker_line import ORDERS, REPORTS, Order, Report
from ..host.sealed_document import pack_document, unpack_document


class SupervisorLine:
    """To a supervisor, over ZeroMQ. A successor has its predecessor's name, by which orders find it. One thread."""

    def __init__(self, address: str, worker: str) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 1000)
        self._socket.setsockopt(zmq.IDENTITY, f"w:{worker}".encode())
        self._socket.connect(address)

    def fileno(self) -> int:
        """Readable when an order may have come."""
        return int(self._socket.get(zmq.FD))

    def next_order(self) -> Order | None:
        """Without waiting: None where there is none."""
        if not int(self._socket.get(zmq.EVENTS)) & zmq.POLLIN:
            return None
        return ORDERS.read(unpack_document(self._socket.recv()))

    def report(self, report: Report) -> None:
        self._socket.send(pack_document(REPORTS.document(report, pid=os.getpid())))

    def close(self) -> None:
        """Waits up to a second for reports that have not left yet."""
        self._socket.close()
        self._context.term()


class OwnLine:
    """To an engine in the same process, which hears `reported(report)`. Any thread may give an order."""

    def __init__(self, reported: Callable[[Report], None]) -> None:
        self.report = reported
        self._waiting: deque[Order] = deque()
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def tell(self, order: Order) -> None:
        self._waiting.append(order)
        os.eventfd_write(self._bell, 1)

    def fileno(self) -> int:
        return self._bell

    def next_order(self) -> Order | None:
        if not self._waiting:
            return None
        order = self._waiting.popleft()
        if not self._waiting:
            os.eventfd_read(self._bell)
        return order

    def close(self) -> None:
        os.close(self._bell)


ControlLine = SupervisorLine | OwnLine
