"""Lines of JSON over a socket pair: what processes of a bench say to each other."""

from __future__ import annotations

import json
import socket
from typing import Any


class Line:
    """One end of the socket pair. Each line is a document."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._stream = connection.makefile("rw")

    def say(self, what: dict[str, Any]) -> None:
        """Raises OSError where the other end is gone."""
        self._stream.write(json.dumps(what) + "\n")
        self._stream.flush()

    def hear(self) -> dict[str, Any]:
        """Raises EOFError, or ConnectionError, where the other end is gone."""
        line = self._stream.readline()
        if not line:
            raise EOFError
        heard: dict[str, Any] = json.loads(line)
        return heard

    def close(self) -> None:
        self._stream.close()
        self._connection.close()
