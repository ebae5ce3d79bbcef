"""What all connections of one terminator share."""

from __future__ import annotations

import asyncio
import ctypes

from . import terminator
from .agreements import Agreements
from .context import ServerContext
from .deadlines import Deadlines
from .libssl import RECORD_NBYTES, Libssl
from .watcher import Watcher

# As asyncio's own: for what is queued to go out, and for the peer to answer our good-bye.
CLOSE_WITHIN_S = 30.0
# A step of a handshake takes the processor for up to 1 ms (RSA): what a flood of them may keep from open streams.
HANDSHAKE_STEPS_A_TURN = 4


class Shared:
    """The library and its context, times and turns to be held to, and what records are read into. Of one loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, library: Libssl, context: ServerContext) -> None:
        self.loop, self.library, self.context = loop, library, context
        self.buffer = ctypes.create_string_buffer(RECORD_NBYTES)
        self.handshakes = Deadlines(loop, terminator.HANDSHAKE_TIMEOUT_S)
        self.closings = Deadlines(loop, CLOSE_WITHIN_S)
        self.watcher = Watcher(loop, HANDSHAKE_STEPS_A_TURN)
        self.agreements = Agreements(library)
