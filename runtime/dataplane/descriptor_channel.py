"""Descriptors between supervisor and a worker or a local client: labelled with msgpack, over a SEQPACKET socket.

Either side may send; a message is a document and the descriptors that belong to it. A peer asks (`ask`, `token`), and
the supervisor answers (`answer` is the token). Before that, or unasked, it sends offers (`offers`) and news (`news`).
The types of all of them stand in `runtime/control/`.
"""

from __future__ import annotations

import array
import contextlib
import os
import socket
from collections import deque
from typing import Any

import msgpack

from ..errors import Disconnected, ProtocolError

# SCM_MAX_FD of the kernel is 253.
MOST_DESCRIPTORS = 200
_MESSAGE_NBYTES = 128 * 1024


class Channel:
    """One end of the pair, non-blocking. One thread at a time.

    Where more than `most_unsent` messages, and their descriptors, would wait for the peer to read, it is parted with.
    """

    def __init__(self, connection: socket.socket, most_unsent: int | None = None) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._most_unsent = most_unsent
        self._unsent: deque[tuple[bytes, list[int]]] = deque()

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def has_unsent(self) -> bool:
        return bool(self._unsent)

    def send(self, message: dict[str, Any], descriptors: list[int] | None = None) -> None:
        """Sends, or queues what the kernel has no room for: then call `flush` when the socket is writable.

        Queued descriptors are duplicated, so the caller may close its own. Raises Disconnected when the peer is gone or
        was parted with, OSError when there is no descriptor for a duplicate.
        """
        packed, own = msgpack.packb(message), descriptors or []
        if self._unsent or not self._try_send(packed, own):
            if self._most_unsent is not None and len(self._unsent) >= self._most_unsent:
                self._part()
            self._unsent.append((packed, _duplicates(own)))
            self.flush()

    def flush(self) -> bool:
        """Sends what is queued; True when nothing is left."""
        while self._unsent:
            packed, descriptors = self._unsent[0]
            if not self._try_send(packed, descriptors):
                return False
            self._unsent.popleft()
            close_all(descriptors)
        return True

    def _part(self) -> None:
        """Both ends see the end of the file."""
        many = len(self._unsent)
        self._discard_unsent()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        raise Disconnected(f"the peer of a descriptor channel asks and does not read: {many} answers wait for it")

    def _try_send(self, packed: bytes, descriptors: list[int]) -> bool:
        """False where the kernel has no room."""
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        try:
            self._socket.sendmsg([packed], ancillary)
        except BlockingIOError:
            return False
        except OSError as error:
            self._discard_unsent()
            raise Disconnected(f"the peer of a descriptor channel is gone: {error}") from None
        return True

    def receive(self) -> tuple[dict[str, Any], list[int]] | None:
        """The next message, or None if none has come. The caller owns the descriptors.

        Raises Disconnected at end of file, ProtocolError for what is no message.
        """
        room = socket.CMSG_SPACE(MOST_DESCRIPTORS * 4)
        try:
            packed, ancillary, flags, _ = self._socket.recvmsg(_MESSAGE_NBYTES, room, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return None
        except OSError as error:
            raise Disconnected(f"the peer of a descriptor channel is gone: {error}") from None
        descriptors = _descriptors(ancillary)
        if not packed:
            raise Disconnected("the peer of a descriptor channel has closed it")
        try:
            if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                raise ProtocolError(
                    f"a message on a descriptor channel has over {_MESSAGE_NBYTES} bytes, or too many descriptors"
                )
            message = msgpack.unpackb(packed)
            if not isinstance(message, dict):
                raise ProtocolError("a message on a descriptor channel is no dict")
        except ValueError as error:
            close_all(descriptors)
            raise ProtocolError(f"a message on a descriptor channel is no msgpack: {error}") from None
        except ProtocolError:
            close_all(descriptors)
            raise
        return message, descriptors

    def close(self) -> None:
        self._discard_unsent()
        self._socket.close()

    def _discard_unsent(self) -> None:
        for _, descriptors in self._unsent:
            close_all(descriptors)
        self._unsent.clear()


def close_all(descriptors: list[int]) -> None:
    """Closes descriptors that nobody wants."""
    for each in descriptors:
        os.close(each)


def _duplicates(descriptors: list[int]) -> list[int]:
    """All of them, or an OSError and none."""
    made: list[int] = []
    try:
        made += (os.dup(each) for each in descriptors)
    except OSError:
        close_all(made)
        raise
    return made


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    found = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return found.tolist()
