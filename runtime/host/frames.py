"""Documents between a supervisor and who started it: msgpack, each behind its length, over a socket pair."""

from __future__ import annotations

import socket
import struct
from typing import Any

from ..errors import Disconnected, ProtocolError
from .sealed_document import pack_document, unpack_document

_LENGTH = struct.Struct("<I")
# A graph's spec with its pickled closures; nothing sensible comes near it.
LARGEST_NBYTES = 256 << 20


def write_frame(connection: socket.socket, document: dict[str, Any]) -> None:
    """Sends one document. Raises OSError when the peer is gone."""
    # Paths are text, and need not be UTF-8.
    packed = pack_document(document)
    connection.sendall(_LENGTH.pack(len(packed)) + packed)


class FrameReader:
    """Reads documents off a blocking socket; a timeout that is set on it applies to each read."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def read(self) -> dict[str, Any]:
        """The next document. Raises Disconnected at end of file, TimeoutError as the socket says."""
        (nbytes,) = _LENGTH.unpack(self._exactly(_LENGTH.size))
        if nbytes > LARGEST_NBYTES:
            raise ProtocolError(f"a document of {nbytes} bytes was announced; at most {LARGEST_NBYTES} are read")
        document = unpack_document(self._exactly(nbytes), strict_map_key=True)
        if not isinstance(document, dict):
            raise ProtocolError("a document that is no dict was sent")
        return document

    def _exactly(self, nbytes: int) -> bytes:
        chunks = bytearray()
        while len(chunks) < nbytes:
            chunk = self._connection.recv(min(1 << 16, nbytes - len(chunks)))
            if not chunk:
                raise Disconnected("the supervisor ended without a word")
            chunks += chunk
        return bytes(chunks)
