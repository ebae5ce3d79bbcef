"""A handshake by libssl."""

from __future__ import annotations

import contextlib
import socket
from time import monotonic

from .hello import HELLO_NBYTES, check_hello
from .secured import Secured
from .shared import Shared
from .states import Event, State
from .terminator import Ended, ProtocolFactory
from .transport import TLSTransport
from .watcher import READ, WRITE

_TCP, _NO_DELAY = int(socket.IPPROTO_TCP), int(socket.TCP_NODELAY)
_SOCKET, _LOW_WATER = int(socket.SOL_SOCKET), int(socket.SO_RCVLOWAT)


class LibsslHandshake:
    """From an accepted connection to a transport, by callbacks alone.

    Until the client's hello is whole libssl has no part, and nothing is held but the connection: the kernel is asked to
    wait for the rest of it. Who is told of before that has come has left, and is libssl's to judge.
    """

    __slots__ = (
        "_awaited",
        "_began",
        "_connection",
        "_context",
        "_descriptor",
        "_ended",
        "_events",
        "_protocol_factory",
        "_secured",
        "_shared",
    )

    def __init__(
        self,
        shared: Shared,
        connection: socket.socket,
        protocol_factory: ProtocolFactory,
        ended: Ended,
    ) -> None:
        self._shared, self._connection = shared, connection
        self._context = shared.context
        self._protocol_factory, self._ended = protocol_factory, ended
        self._descriptor = connection.fileno()
        self._secured = Secured(shared.library, shared.buffer)
        self._events = READ  # that are watched for
        self._awaited = 0  # bytes before which the kernel tells of nothing
        self._began = 0.0  # when a hello had come
        shared.watcher.add(self._descriptor, self)
        shared.handshakes.add(self)
        self.ready(READ)  # the hello is often here already

    def cancel(self) -> None:
        """As Handshake says."""
        if self._stop():
            self._shared.loop.call_soon(self._ended, None)

    def overdue(self) -> None:
        """As Overdue says."""
        self._fail(TimeoutError("the handshake was not done in time"))

    def ready(self, _: int) -> None:
        """As Watched says."""
        secured, watcher = self._secured, self._shared.watcher
        if not watcher.steps_left:
            return
        watcher.steps_left -= 1
        try:
            if secured.state is State.ACCEPTED and not self._begins():
                return
            try:
                is_done = secured.handshake()
            finally:  # as long as this holds the context
                if self._context.tickets.turned:
                    self._context.tickets.turn_back()
        except OSError as error:
            self._fail(error)
            return
        if is_done:
            self._open()
        elif secured.wants_write or self._events != READ:
            self._watch_for(WRITE | READ if secured.wants_write else READ)

    def _begins(self) -> bool:
        """Whether there is what libssl needs to begin."""
        connection = self._connection
        try:
            nbytes = check_hello(connection)
        except BlockingIOError:
            return False
        if nbytes > self._awaited:
            self._awaited = nbytes
            connection.setsockopt(_SOCKET, _LOW_WATER, nbytes)
            return False
        if self._awaited:
            connection.setsockopt(_SOCKET, _LOW_WATER, 1)
        connection.setsockopt(_TCP, _NO_DELAY, 1)
        self._context = context = self._shared.context  # held, so that its tickets' keys are known to the end
        context.tickets.refresh()
        self._began = monotonic()
        self._secured.begin(context.pointer, self._descriptor)
        return True

    def _watch_for(self, events: int) -> None:
        self._shared.watcher.change(self._descriptor, self._events, events)
        self._events = events

    def _open(self) -> None:
        shared = self._shared
        shared.handshakes.discard(self)
        if self._events != READ:
            self._watch_for(READ)
        agreed = shared.agreements.of(self._secured, monotonic() - self._began)
        try:
            protocol = self._protocol_factory()
        except Exception as error:
            self._secured.meet(Event.LOST)
            self._close()
            shared.loop.call_exception_handler({"message": "no protocol could be made", "exception": error})
        else:
            TLSTransport(
                shared.loop, self._secured, self._connection, protocol, shared.closings, shared.watcher
            ).start()
        self._ended(agreed)

    def _fail(self, error: OSError) -> None:
        if self._stop():
            self._ended(error)

    def _stop(self) -> bool:
        """Closes the connection; whether it was still this handshake's."""
        if self._secured.state not in (State.ACCEPTED, State.HANDSHAKING):
            return False
        self._secured.meet(Event.LOST)
        self._shared.handshakes.discard(self)
        if self._awaited and not self._secured.pointer:
            with contextlib.suppress(OSError):  # what is not read would make the end a reset
                self._connection.recv(HELLO_NBYTES)
        self._close()
        return True

    def _close(self) -> None:
        self._shared.watcher.remove(self._descriptor, self._events)
        self._secured.free()
        self._connection.close()
