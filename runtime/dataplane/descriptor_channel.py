"""Descriptors between supervisor and a worker or a local client: labelled with msgpack, over a SEQPACKET socket.

Either side may send; a message is a document and the descriptors that belong to it. A peer asks (`ask`, `token`), and
the supervisor answers (`answer` is the token). Before that, or unasked, it sends offers (`offers`) and news (`news`).
The types of all of them stand in `runtime/control/`.
"""

from __future__ import annotations

import array
import contextlib
import os
import select
import socket
import threading
from collections import deque
from typing import Any, Protocol

import msgpack

from ...shm.bell import now_ns
from ..control.channel import ASKS, NEWS, OFFERS, Ask, News, Offer
from ..errors import DeadlineExceeded, Disconnected, ProtocolError, SlabwireError, error_from_wire

# SCM_MAX_FD of the kernel is 253.
MOST_DESCRIPTORS = 200
_MESSAGE_NBYTES = 128 * 1024
# The supervisor answers in well under a millisecond; on a machine that is swapping or stopped it may take long.
ANSWER_WITHIN_S = 20.0
# Of the first question. A client that is turned away gets its answer before it has asked.
FIRST_TOKEN = 1


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


class Listener(Protocol):
    """Who hears what a supervisor says, in the order in which it was said."""

    def offered(self, offers: list[Offer], descriptors: list[int]) -> None:
        """Takes the descriptors over."""

    def told(self, news: News) -> None: ...


class Unheard:
    """The listener of a line whose owner is not there yet, or wants nothing."""

    def offered(self, _: list[Offer], descriptors: list[int]) -> None:
        close_all(descriptors)

    def told(self, news: News) -> None: ...


class Link:
    """What a worker or a local client holds of the supervisor. Any thread may ask.

    `is_torn`, to be asked where nobody is hearing news: some were lost, since an exception that a signal's handler
    raised, KeyboardInterrupt for one, came after they had been received and before they were taken in.
    """

    def __init__(self, channel: Channel, listener: Listener) -> None:
        self.channel = channel
        self.listener = listener
        self._lock = threading.RLock()
        self._last_token = FIRST_TOKEN - 1
        self._answers: dict[int, dict[str, Any]] = {}
        self.is_torn = False

    def ask(self, ask: Ask) -> None:
        """Asks and waits until it was done. Raises what the supervisor refuses with, Disconnected when it is gone."""
        with self._lock:
            self._last_token += 1
            token = self._last_token
            try:
                self.channel.send(ASKS.document(ask, token=token))
            except Disconnected:
                if not self._heard_last(token):
                    raise
            answer = self._await(token)
        if "error" in answer:
            raise error_from_wire(*answer["error"])

    def pump(self) -> bool:
        """Hears all that has come; True if there was something. Raises Disconnected when the supervisor is gone."""
        with self._lock:
            heard = False
            was_torn, self.is_torn = self.is_torn, True
            try:
                while (received := self.channel.receive()) is not None:
                    self._take(*received)
                    heard = True
            except SlabwireError:
                self.is_torn = was_torn
                raise
            self.is_torn = was_torn
            return heard

    def _await(self, token: int) -> dict[str, Any]:
        poll = select.poll()
        until = now_ns() + int(ANSWER_WITHIN_S * 1e9)
        while token not in self._answers:
            poll.register(self.channel.fileno(), select.POLLIN | (select.POLLOUT if self.channel.has_unsent else 0))
            poll.poll(1000)
            try:
                self.channel.flush()
                self.pump()
            except Disconnected:
                if not self._heard_last(token):
                    raise
            if now_ns() > until and token not in self._answers:
                raise DeadlineExceeded(f"the supervisor did not answer within {ANSWER_WITHIN_S:.0f} s: is it stopped?")
        return self._answers.pop(token)

    def _heard_last(self, token: int) -> bool:
        """Whether the answer came before the end."""
        with contextlib.suppress(Disconnected):
            self.pump()
        return token in self._answers

    def _take(self, document: dict[str, Any], descriptors: list[int]) -> None:
        if "answer" in document:
            self._answers[document["answer"]] = document
        elif "offers" in document:
            try:
                offers = [OFFERS.read(each) for each in document["offers"]]
            except ProtocolError:
                close_all(descriptors)
                raise
            self.listener.offered(offers, descriptors)
        else:
            self.listener.told(NEWS.read(document))

    def close(self) -> None:
        self.channel.close()
