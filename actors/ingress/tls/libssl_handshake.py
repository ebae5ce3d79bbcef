"""A handshake by libssl."""

from __future__ import annotations

import socket

from .hello import check_hello
from .outcome import agreed_by
from .secured import Facts, Secured
from .shared import Shared
from .states import Event, State
from .terminator import Ended, ProtocolFactory
from .transport import TLSTransport


class LibsslHandshake:
    """From an accepted connection to a transport, by callbacks alone. Until the first byte comes libssl has no part."""

    __slots__ = (
        "_began",
        "_connection",
        "_descriptor",
        "_ended",
        "_protocol_factory",
        "_secured",
        "_shared",
        "_writing",
    )

    def __init__(
        self,
        shared: Shared,
        connection: socket.socket,
        protocol_factory: ProtocolFactory,
        ended: Ended,
    ) -> None:
        self._shared, self._connection = shared, connection
        self._protocol_factory, self._ended = protocol_factory, ended
        self._descriptor = connection.fileno()  # what asyncio is given: it looks up a socket by its long description
        self._secured = Secured(shared.library, shared.buffer)
        self._writing = False  # whether the loop watches for room
        self._began = 0.0  # on the loop's clock, when the first byte had come
        shared.handshakes.add(self)
        shared.loop.add_reader(self._descriptor, self._step)

    def cancel(self) -> None:
        """As Handshake says."""
        if self._stop():
            self._shared.loop.call_soon(self._ended, None)

    def overdue(self) -> None:
        """As Overdue says."""
        self._fail(TimeoutError("the handshake was not done in time"))

    def _step(self) -> None:
        if self._shared.steps.take():
            self._advance()
            return
        # The selector would tell of it in each turn until it is its own: of a flood, thousands of times.
        self._shared.loop.remove_reader(self._descriptor)
        self._watch_for_room(False)
        self._shared.steps.wait(self._go_on)

    def _go_on(self) -> None:
        if self._secured.state in (State.ACCEPTED, State.HANDSHAKING):
            self._shared.loop.add_reader(self._descriptor, self._step)
            self._advance()

    def _advance(self) -> None:
        secured = self._secured
        try:
            if secured.state is State.ACCEPTED:
                check_hello(self._connection)
                self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._began = self._shared.loop.time()
                secured.begin(self._shared.context.pointer, self._connection.fileno())
            done = secured.handshake()
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(error)
            return
        self._watch_for_room(not done and secured.wants_write)
        if done:
            self._open()

    def _watch_for_room(self, wanted: bool) -> None:
        if wanted and not self._writing:
            self._shared.loop.add_writer(self._descriptor, self._step)
        elif self._writing and not wanted:
            self._shared.loop.remove_writer(self._descriptor)
        self._writing = wanted

    def _open(self) -> None:
        shared = self._shared
        shared.handshakes.discard(self)
        agreed = agreed_by(Facts(self._secured), shared.loop.time() - self._began)
        try:
            protocol = self._protocol_factory()
        except Exception as error:
            self._secured.meet(Event.LOST)
            self._close()
            shared.loop.call_exception_handler({"message": "no protocol could be made", "exception": error})
        else:
            TLSTransport(shared.loop, self._secured, self._connection, protocol, shared.closings).start()
        self._ended(agreed)

    def _fail(self, error: OSError) -> None:
        if self._stop():
            self._ended(error)

    def _stop(self) -> bool:
        """Closes the connection; whether it was still this handshake's."""
        if self._secured.state not in (State.ACCEPTED, State.HANDSHAKING):
            return False
        self._secured.meet(Event.LOST)
        self._close()
        return True

    def _close(self) -> None:
        self._shared.handshakes.discard(self)
        self._shared.loop.remove_reader(self._descriptor)
        self._watch_for_room(False)
        self._secured.free()
        self._connection.close()
