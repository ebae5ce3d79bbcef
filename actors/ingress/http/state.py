"""What all connections of a server share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextvars import Context, copy_context
from email.utils import formatdate
from typing import Any

from uvicorn.server import ServerState


class State(ServerState):
    """What all connections share. `changed` is set whenever a connection or an answer has ended."""

    def __init__(self) -> None:
        super().__init__()
        self.connections: set[Any] = set()
        self.changed = asyncio.Event()
        self.refused = 0
        self.is_leaving = False  # whether each connection closes behind its next answer
        self.shown: Callable[[int], object] = lambda _: None  # told how many connections there are
        self._date_s, self._date_line = 0, b""
        self._context: Context | None = None

    def date_line(self) -> bytes:
        """The Date header of this second; it is made when an answer needs it."""
        now = int(time.time())
        if now != self._date_s:
            self._date_s, self._date_line = now, f"date: {formatdate(now, usegmt=True)}\r\n".encode()
        return self._date_line

    def new_context(self) -> Context:
        """For one request: a request must not begin with what the one before it has set. What was set where the server
        was when the first came is there, such as whose server it is.
        """
        if self._context is None:
            self._context = copy_context()
        return self._context.copy()
