"""A client of a gateway made of a bare socket: it can stop, vanish or lie at any byte of the protocol (ZMTP 3.1)."""

from __future__ import annotations

import socket
import struct
from typing import Any, Self

import msgpack

GREETING = bytes([0xFF, 0, 0, 0, 0, 0, 0, 0, 1, 0x7F, 3, 1]) + b"NULL".ljust(20, b"\0") + b"\0" + bytes(31)
_READY = b"\x05READY" + b"\x0bSocket-Type" + struct.pack(">I", 6) + b"DEALER"
_MORE, _LONG, _COMMAND = 1, 2, 4


class Bare:
    """One connection to a `tcp://127.0.0.1:PORT`."""

    def __init__(self, address: str) -> None:
        host, _, port = address.removeprefix("tcp://").rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=30)

    def greet(self) -> None:
        """To the end of both greetings, so that the other side surely knows of this connection."""
        self.socket.sendall(GREETING)
        self._receive(len(GREETING))

    def shake_hands(self) -> None:
        self.greet()
        self.socket.sendall(bytes([_COMMAND, len(_READY)]) + _READY)

    def send(self, payload: Any = None, **head: Any) -> None:
        frames = msgpack.packb({"version": 1, **head}), msgpack.packb(payload)
        self.socket.sendall(framed(frames[0], more=True) + framed(frames[1], more=False))

    def _receive(self, nbytes: int) -> None:
        while nbytes:
            came = self.socket.recv(nbytes)
            assert came, "the other side has hung up"
            nbytes -= len(came)

    def wait_for(self, text: bytes) -> None:
        """Reads until that has come."""
        came = b""
        while text not in came:
            came += (more := self.socket.recv(1 << 16))
            assert more, "the other side has hung up"

    def break_off(self) -> None:
        """Ends it as a crash of the host does: with a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


def framed(body: bytes, *, more: bool) -> bytes:
    """One frame of a message."""
    return bytes([_LONG | (_MORE if more else 0)]) + struct.pack(">Q", len(body)) + body
