"""Messages that do not end: libzmq keeps what has come of one until its last frame is there, however much that is.

How much that is only the kernel knows, and only of TCP: what it has received since the last message that was whole.
"""

from __future__ import annotations

import logging
import os
import resource
import socket
import struct
from collections.abc import Mapping

from ..remote.protocol import LARGEST_MESSAGE_NBYTES
from .strangers import connections, shut_down

logger = logging.getLogger("slabwire")

# While this process has less memory to itself nobody looks.
_LOOK_FROM_NBYTES = 512 << 20
# A message, and what the transport adds to its frames.
_MOST_NBYTES = 2 * LARGEST_MESSAGE_NBYTES
_RECEIVED = struct.Struct("=128xQ")  # tcpi_bytes_received in struct tcp_info of linux/tcp.h


class EndlessMessages:
    """Ends connections in whose message more has come than a message may have."""

    def __init__(self) -> None:
        self._since: dict[int, tuple[int, int]] = {}  # by inode: messages that had come, bytes that had

    def look(self, messages: Mapping[int, int]) -> int:
        """From time to time, with how many messages have come by inode; returns how many connections were ended."""
        if private_nbytes() < _LOOK_FROM_NBYTES:
            self._since = {}
            return 0
        since, ended = {}, 0
        for inode, descriptor in connections(os.listdir("/proc/self/fd")):
            whole, received = messages.get(inode, 0), _received(descriptor)
            # Of what has sent no whole message all that came is unfinished.
            begun = self._since.get(inode, (whole, received if whole else 0))
            since[inode] = begun if begun[0] == whole else (whole, received)
            unfinished = received - since[inode][1]
            if unfinished > _MOST_NBYTES and shut_down(descriptor, inode):
                logger.warning("a connection is ended: %d bytes came of a message, and it had no end", unfinished)
                ended += 1
        self._since = since
        return ended


def private_nbytes() -> int:
    """Memory that this process shares with nobody."""
    with open("/proc/self/statm") as file:
        _, resident, shared, *_ = map(int, file.read().split())
    return (resident - shared) * resource.getpagesize()


def _received(descriptor: int) -> int:
    """Bytes that a TCP connection has received; 0 for others."""
    try:
        with socket.socket(fileno=os.dup(descriptor)) as own:
            return int(_RECEIVED.unpack(own.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RECEIVED.size))[0])
    except (OSError, struct.error):
        return 0
