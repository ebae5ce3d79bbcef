"""zenoh: two peers joined over loopback, with its own optimisation by shared memory; subscribers that poll."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zenoh

from ..harness.contestant import BenchError, Payload, Seats, checksum
from ..harness.echo import Echoed, EchoProcess, Order
from ..harness.process import mapped_files

_NUMBER = struct.Struct("<Q")
_DEPTH = 4096


class _Peer:
    """One process's session: publishes on one key, and reads the other."""

    def __init__(self, endpoint: str, role: str, out: str, back: str) -> None:
        zenoh.init_log_from_env_or("error")
        config = zenoh.Config()
        config.insert_json5("mode", '"peer"')
        config.insert_json5("scouting/multicast/enabled", "false")
        config.insert_json5(f"{role}/endpoints", json.dumps([endpoint]))
        if role == "connect":
            config.insert_json5("listen/endpoints", '["tcp/127.0.0.1:0"]')
        self.session: Any = zenoh.open(config)  # its stubs lack types, and err about matching_status
        self.subscriber = self.session.declare_subscriber(back, zenoh.handlers.FifoChannel(_DEPTH))
        self.publisher: Any = self.session.declare_publisher(
            out, express=True, congestion_control=zenoh.CongestionControl.BLOCK
        )

    def receive(self) -> bytes:
        receive = self.subscriber.try_recv
        while (sample := receive()) is None:
            pass
        packed: bytes = sample.payload.to_bytes()
        return packed

    def receive_number(self) -> int:
        return int(_NUMBER.unpack(self.receive())[0])

    def await_other(self) -> None:
        """Returns when the other end reads what is published here."""
        while not self.publisher.matching_status.matching:
            os.sched_yield()


class _Zenoh(Echoed):
    name = "zenoh"
    title = "zenoh, polling"
    serve = "serve"

    def __init__(self, seats: Seats, sizes: Sequence[int] = ()) -> None:  # noqa: ARG002 - payloads have any size
        endpoint = f"tcp/127.0.0.1:{_free_port()}"
        self._peer = _Peer(endpoint, "listen", "bench/there", "bench/back")
        super().__init__(EchoProcess(f"ways.zenoh_peers:{self.serve}", seats.echo, {"endpoint": endpoint}, []))
        self._peer.await_other()
        if self._peer.receive_number() != 1:
            raise BenchError("zenoh: the other end did not say that it is there")

    def __exit__(self, *error: Any) -> None:
        left = {path for pid in (os.getpid(), self.pid) for path in mapped_files(pid) if path.endswith(".zenoh")}
        super().__exit__(*error)
        for each in left:
            with contextlib.suppress(OSError):
                Path(each).unlink()

    def _let_go(self) -> None:
        self._peer.session.close()


class Zenoh(_Zenoh):
    def trip(self, payload: Payload) -> int:
        self._peer.publisher.put(payload.tobytes())  # it takes bytes and nothing else
        return self._peer.receive_number()


class ZenohStream(_Zenoh):
    serve = "serve_stream"

    def carry(self, count: int) -> int:
        self._echo.order(_NUMBER.size, count, spinning=True)
        put, pack = self._peer.publisher.put, _NUMBER.pack
        for number in range(1, count + 1):
            put(pack(number))
        return self._peer.receive_number()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _far(details: dict[str, Any]) -> _Peer:
    peer = _Peer(details["endpoint"], "connect", "bench/back", "bench/there")
    peer.await_other()
    peer.publisher.put(_NUMBER.pack(1))
    return peer


def serve(orders: Iterable[Order], details: dict[str, Any]) -> None:
    """The echo."""
    peer = _far(details)
    for order in orders:
        for _ in range(order.trips):
            peer.publisher.put(_NUMBER.pack(checksum(np.frombuffer(peer.receive(), np.uint8))))
    peer.session.close()


def serve_stream(orders: Iterable[Order], details: dict[str, Any]) -> None:
    """Adds the numbers up."""
    peer = _far(details)
    for order in orders:
        total = 0
        for _ in range(order.trips):
            total += peer.receive_number()
        peer.publisher.put(_NUMBER.pack(total))
    peer.session.close()
