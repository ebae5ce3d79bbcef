"""A ClientHello put together by hand, and what is said to it, record by record (RFC 5246, RFC 8446)."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable
from typing import NamedTuple

CHANGE_CIPHER_SPEC, ALERT, HANDSHAKE = 20, 21, 22
SERVER_HELLO = 2
# Of alerts.
UNEXPECTED_MESSAGE, HANDSHAKE_FAILURE, DECODE_ERROR, PROTOCOL_VERSION, INAPPROPRIATE_FALLBACK = 10, 40, 50, 70, 86
GROUPS, SIGNATURES, VERSIONS = 10, 13, 43
_POINT_FORMATS = 11
# x25519, secp256r1, secp384r1.
OUR_GROUPS = (29, 23, 24)
# ecdsa_secp256r1_sha256, rsa_pss_rsae_sha256, rsa_pkcs1_sha256.
_SIGNATURES = (0x0403, 0x0804, 0x0401)


def numbers(values: Iterable[int]) -> bytes:
    return b"".join(struct.pack(">H", each) for each in values)


def sized(data: bytes) -> bytes:
    return struct.pack(">H", len(data)) + data


def extension(kind: int, data: bytes) -> bytes:
    return struct.pack(">H", kind) + sized(data)


def client_hello(
    suites: Iterable[int],
    *,
    version: int = 0x0303,
    groups: Iterable[int] = OUR_GROUPS,
    compressions: bytes = b"\0",
    more: bytes = b"",
) -> bytes:
    """That of a client that speaks `version` at most, as records."""
    extensions = extension(GROUPS, sized(numbers(groups))) + extension(_POINT_FORMATS, b"\1\0")
    extensions += extension(SIGNATURES, sized(numbers(_SIGNATURES))) + more
    body = struct.pack(">H", version) + bytes(range(32)) + b"\0" + sized(numbers(suites))
    body += bytes([len(compressions)]) + compressions + sized(extensions)
    message = b"\1" + len(body).to_bytes(3, "big") + body
    return b"".join(record(message[at : at + 16_000]) for at in range(0, len(message), 16_000))


def record(data: bytes, kind: int = HANDSHAKE, version: int = 0x0301) -> bytes:
    return struct.pack(">BH", kind, version) + sized(data)


class Heard(NamedTuple):
    """The first record that the server said: its type, and what it holds; type 0 where it said nothing and closed."""

    kind: int
    data: bytes

    @property
    def alert(self) -> int | None:
        """The reason of a fatal one."""
        return self.data[1] if self.kind == ALERT and self.data[0] == 2 else None

    @property
    def random(self) -> bytes:
        assert (self.kind, self.data[0]) == (HANDSHAKE, SERVER_HELLO)
        return self.data[6:38]

    @property
    def suite_and_compression(self) -> tuple[int, int]:
        at = 39 + self.data[38]
        return int.from_bytes(self.data[at : at + 2], "big"), self.data[at + 2]


def said_to(address: tuple[str, int], data: bytes) -> Heard:
    """Blocks, to be used in a thread."""
    with socket.create_connection(address) as client:
        client.sendall(data)
        return hear(client)


def hear(client: socket.socket) -> Heard:
    stream = client.makefile("rb")
    head = stream.read(5)
    if len(head) < 5:
        return Heard(0, head)
    return Heard(head[0], stream.read(int.from_bytes(head[3:], "big")))
