"""Lines of JSON over a socket pair: what processes of a bench say to each other."""

from __future__ import annotations

import json
import socket
from typing import Any


class Line:
    """One end of the socket pair. Each line is a document."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        # Nothing is buffered on its way out: what could not be said would have to be said again by `close`.
        self._answers = connection.makefile("r")

    def say(self, what: dict[str, Any]) -> None:
        """Raises OSError where the other end is gone."""
        self._connection.sendall(json.dumps(what).encode() + b"\n")

    def hear(self) -> dict[str, Any]:
        """Raises EOFError, or ConnectionError, where the other end is gone."""
        line = self._answers.readline()
        if not line:
            raise EOFError
        heard: dict[str, Any] = json.loads(line)
        return heard

    def close(self) -> None:
        self._answers.close()
        self._connection.close()
