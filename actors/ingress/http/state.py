"""What all connections of a server share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
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
        self._date_s = 0

    def touch_date(self) -> None:
        """Brings the Date header up to this second; it is made when a request needs it."""
        now = int(time.time())
        if now != self._date_s:
            self._date_s = now
            self.default_headers = [(b"date", formatdate(now, usegmt=True).encode())]
