"""Connections behind which there is no client: they may not take all descriptors.

libzmq accepts whatever comes for as long as there are descriptors. Where there is none left a local socket of its ends
the process, and nobody's stream can be opened. It ends by itself what does not shake hands, but only after a while, and
nothing that shakes hands and then is silent.
"""

from __future__ import annotations

import logging
import os
import resource
import socket
import stat
from collections.abc import Iterator, Set

logger = logging.getLogger("slabwire")


class Strangers:
    """Those that are there for a while are ended where over half of all descriptors are in use."""

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
