"""Connections that are ended for what they do to this process: those without a client, and messages without an end.

libzmq accepts whatever comes for as long as there are descriptors. Where there is none left a local socket of its ends
the process, and nobody's stream can be opened. It ends by itself what does not shake hands, but only after a while, and
nothing that shakes hands and then is silent.

libzmq also keeps what has come of a message until its last frame is there, however much that is. How much that is only
the kernel knows, and only of TCP: what it has received since the last message that was whole.
"""

from __future__ import annotations

import logging
import os
import resource
import socket
import stat
import struct
from collections.abc import Iterator, Mapping, Set

from ..remote.protocol import LARGEST_MESSAGE_NBYTES

logger = logging.getLogger("slabwire")

# While this process has less memory to itself nobody looks for messages without an end.
_LOOK_FROM_NBYTES = 512 << 20
# A message, and what the transport adds to its frames.
_MOST_NBYTES = 2 * LARGEST_MESSAGE_NBYTES
_RECEIVED = struct.Struct("=128xQ")  # tcpi_bytes_received in struct tcp_info of linux/tcp.h


class Strangers:
    """Connections behind which there is no client. They end when over half of all descriptors are in use."""

    def __init__(self) -> None:
        self._seen: frozenset[int] = frozenset()

    def look(self, clients: Set[int]) -> None:
        """From time to time, with the inodes of the connections that stay. Who is new gets until the next look."""
        descriptors = os.listdir("/proc/self/fd")
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if len(descriptors) <= limit // 2:
            self._seen = frozenset()
            return
        strangers = {inode: each for inode, each in connections(descriptors) if inode not in clients}
        ended = [inode for inode, each in strangers.items() if inode in self._seen and shut_down(each, inode)]
        if ended:
            logger.warning(
                "%d of %d descriptors were in use: %d connections that were no clients are ended; "
                "if they were wanted, raise RLIMIT_NOFILE (ulimit -Hn)",
                len(descriptors),
                limit,
                len(ended),
            )
        self._seen = frozenset(strangers)


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


def connections(descriptors: list[str]) -> Iterator[tuple[int, int]]:
    """Inode and descriptor of each that was accepted here."""
    for number in map(int, descriptors):
        inode = inode_of(number)
        if inode and _is_accepted(number):
            yield inode, number


def _is_accepted(descriptor: int) -> bool:
    """Whether it has a name of its own, as listening sockets have, and listens not. Our own pairs have no name."""
    try:
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            return False
        with socket.socket(fileno=os.dup(descriptor)) as own:
            listens = own.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            return not listens and own.type == socket.SOCK_STREAM and bool(own.getsockname())
    except OSError:  # it has just been closed, or we have no descriptor to look with
        return False


def inode_of(descriptor: int) -> int:
    """Names what is open behind a descriptor, whose number may soon be another's: 0 where nothing is."""
    try:
        return os.fstat(descriptor).st_ino
    except OSError:
        return 0


def shut_down(descriptor: int, inode: int) -> bool:
    """Ends a connection that libzmq has, which then frees what it keeps for it; False if it is another's by now."""
    try:
        with socket.socket(fileno=os.dup(descriptor)) as own:  # from here on the number means this one
            if inode_of(own.fileno()) != inode:
                return False
            own.shutdown(socket.SHUT_RDWR)
    except OSError:
        return False
    return True
