"""iceoryx2: loans of uninitialised slices, filled by one memmove, and subscribers that poll.

Its files bear a prefix of this bench's own, and what is left of them is removed at the end.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import struct
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import iceoryx2

from ..harness.contestant import Payload, Seats
from ..harness.echo import Echoed, EchoProcess, Order

_NUMBER = struct.Struct("<Q")
_STREAM_DEPTH = 256
_BYTES = iceoryx2.Slice[ctypes.c_uint8]


class _Node:
    """One process's ports: publishes to one service, and reads the other."""

    def __init__(self, prefix: str, root: str, out: str, back: str, largest: int) -> None:
        iceoryx2.set_log_level(iceoryx2.LogLevel.Error)
        config = iceoryx2.config.default()
        settings = config.global_cfg
        settings.prefix, settings.root_path = iceoryx2.FileName.new(prefix), iceoryx2.Path.new(root)
        builder = iceoryx2.NodeBuilder.new().config(config)
        builder = builder.signal_handling_mode(iceoryx2.SignalHandlingMode.Disabled)
        self._node = builder.create(iceoryx2.ServiceType.Ipc)
        ports = self._service(out).publisher_builder().initial_max_slice_len(largest)
        # A full reader holds up the sender, as it does everywhere else here; the default drops what is new.
        self.publisher = ports.backpressure_strategy(iceoryx2.BackpressureStrategy.RetryUntilDelivered).create()
        self.subscriber = self._service(back).subscriber_builder().buffer_size(_STREAM_DEPTH).create()

    def _service(self, name: str) -> Any:
        builder = self._node.service_builder(iceoryx2.ServiceName.new(name)).publish_subscribe(_BYTES)
        builder = builder.enable_safe_overflow(False).subscriber_max_buffer_size(_STREAM_DEPTH)
        return builder.open_or_create()

    def send(self, address: int | bytes, nbytes: int) -> None:
        sample = self.publisher.loan_slice_uninit(nbytes)
        ctypes.memmove(sample.payload_ptr, address, nbytes)
        sample.assume_init().send()

    def receive(self) -> Any:
        """The next sample: to be deleted when it has been read."""
        receive = self.subscriber.receive
        while (sample := receive()) is None:
            pass
        return sample

    def receive_number(self) -> int:
        sample = self.receive()
        value = ctypes.c_uint64.from_address(sample.payload_ptr).value
        sample.delete()
        return int(value)


class _Iceoryx2(Echoed):
    name = "iceoryx2"
    title = "iceoryx2, polling"
    serve = "serve"

    def __init__(self, seats: Seats, sizes: Sequence[int] = (8,)) -> None:
        self._prefix = f"slabwire_bench_{os.getpid()}_{secrets.token_hex(4)}_"
        self._root = f"{gettempdir()}/{self._prefix}"
        self._node = _Node(self._prefix, self._root, "there", "back", max(sizes))
        details = {"prefix": self._prefix, "root": self._root}
        super().__init__(EchoProcess(f"ways.iox:{self.serve}", seats.echo, details, []))
        self._node.receive_number()  # it is there

    def _let_go(self) -> None:
        del self._node
        for each in Path("/dev/shm").glob(f"{self._prefix}*"):
            each.unlink(missing_ok=True)
        shutil.rmtree(self._root, ignore_errors=True)


class Iceoryx2(_Iceoryx2):
    def trip(self, payload: Payload) -> int:
        self._node.send(payload.ctypes.data, payload.nbytes)
        return self._node.receive_number()


class Iceoryx2Stream(_Iceoryx2):
    serve = "serve_stream"

    def carry(self, count: int) -> int:
        self._echo.order(_NUMBER.size, count, spinning=True)
        send, pack = self._node.send, _NUMBER.pack
        for number in range(1, count + 1):
            send(pack(number), 8)
        return self._node.receive_number()


def _far(details: dict[str, Any]) -> tuple[_Node, Callable[[int], None]]:
    node = _Node(details["prefix"], details["root"], "back", "there", _NUMBER.size)

    def answer(value: int) -> None:
        node.send(_NUMBER.pack(value), _NUMBER.size)

    answer(1)
    return node, answer


def serve(orders: Iterable[Order], details: dict[str, Any]) -> None:
    """The echo."""
    node, answer = _far(details)
    for order in orders:
        kind = ctypes.c_uint8 * order.nbytes
        for _ in range(order.trips):
            sample = node.receive()
            payload = kind.from_address(sample.payload_ptr)
            value = payload[0] << 8 | payload[order.nbytes - 1]
            sample.delete()
            answer(value)


def serve_stream(orders: Iterable[Order], details: dict[str, Any]) -> None:
    """Adds the numbers up."""
    node, answer = _far(details)
    for order in orders:
        total = 0
        for _ in range(order.trips):
            total += node.receive_number()
        answer(total)
