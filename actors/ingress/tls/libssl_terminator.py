"""TLS by the system's libssl, on the connections' own descriptors."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

from . import terminator
from .certificate import Certificate
from .context import ServerContext
from .deadlines import Deadlines
from .hello import check_hello
from .libssl import Libssl
from .secured import Secured
from .states import Event, State
from .terminator import ALPN, Minimum, ProtocolFactory
from .transport import TLSTransport
from .turns import Turns

# As asyncio's own: for what is queued to go out, and for the peer to answer our good-bye.
CLOSE_WITHIN_S = 30.0
# A step of a handshake takes the processor for up to 1 ms (RSA): what a flood of them may keep from open streams.
HANDSHAKE_STEPS_A_TURN = 4


class LibsslTerminator:
    """TLS 1.3, and 1.2 where `minimum` says so. Session tickets are good for this process alone.

    An idle connection holds no buffer. Raises CertificateError if libssl does not take the certificate. All
    connections of one terminator are on one loop.
    """

    def __init__(self, library: Libssl, certificate: Certificate, minimum: Minimum = "1.3") -> None:
        self.certificate = certificate
        self._minimum = minimum
        self._library = library
        self._context = ServerContext(library, certificate, minimum)
        self._pace: Pace | None = None

    def secure(
        self,
        connection: socket.socket,
        protocol_factory: ProtocolFactory,
        ended: Callable[[OSError | None], object],
    ) -> LibsslHandshake:
        """As Terminator says."""
        if self._pace is None:
            self._pace = Pace(asyncio.get_running_loop())
        return LibsslHandshake(self._library, self._context, self._pace, connection, protocol_factory, ended)

    def describe(self) -> dict[str, Any]:
        """As Terminator says; also the key exchange's groups and how the certificate is compressed, the best first."""
        return {
            "engine": "libssl",
            "library": self._library.version,
            "minimum": f"TLSv{self._minimum}",
            "alpn": list(ALPN),
            "groups": self._context.groups,
            "certificate_compression": self._context.compressions,
            "certificate": str(self.certificate.public),
            "not_after": self.certificate.not_after.isoformat(),
        }


class Pace:
    """What the connections of one loop share to be held to their times and turns."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.handshakes = Deadlines(loop, terminator.HANDSHAKE_TIMEOUT_S)
        self.closings = Deadlines(loop, CLOSE_WITHIN_S)
        self.steps = Turns(loop, HANDSHAKE_STEPS_A_TURN)


class LibsslHandshake:
    """From an accepted connection to a transport, by callbacks alone. Until the first byte comes libssl has no part."""

    __slots__ = (
        "_connection",
        "_context",
        "_descriptor",
        "_ended",
        "_library",
        "_pace",
        "_protocol_factory",
        "_secured",
        "_writing",
    )

    def __init__(
        self,
        library: Libssl,
        context: ServerContext,
        pace: Pace,
        connection: socket.socket,
        protocol_factory: ProtocolFactory,
        ended: Callable[[OSError | None], object],
    ) -> None:
        self._library, self._context, self._pace = library, context, pace
        self._connection, self._protocol_factory, self._ended = connection, protocol_factory, ended
        self._descriptor = connection.fileno()  # what asyncio is given: it looks up a socket by its long description
        self._secured = Secured(library)
        self._writing = False  # whether the loop watches for room
        pace.handshakes.add(self)
        pace.loop.add_reader(self._descriptor, self._step)

    def cancel(self) -> None:
        """As Handshake says."""
        if self._stop():
            self._pace.loop.call_soon(self._ended, None)

    def overdue(self) -> None:
        """As Overdue says."""
        self._fail(TimeoutError("the handshake was not done in time"))

    def _step(self) -> None:
        if not self._pace.steps.take():
            return  # the selector tells again in the next turn
        secured = self._secured
        try:
            if secured.state is State.ACCEPTED:
                check_hello(self._connection)
                self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                secured.begin(self._context.pointer, self._connection.fileno())
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
            self._pace.loop.add_writer(self._descriptor, self._step)
        elif self._writing and not wanted:
            self._pace.loop.remove_writer(self._descriptor)
        self._writing = wanted

    def _open(self) -> None:
        pace = self._pace
        pace.handshakes.discard(self)
        try:
            protocol = self._protocol_factory()
        except Exception as error:
            self._secured.meet(Event.LOST)
            self._close()
            pace.loop.call_exception_handler({"message": "no protocol could be made", "exception": error})
        else:
            TLSTransport(pace.loop, self._secured, self._connection, protocol, pace.closings).start()
        self._ended(None)

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
        self._pace.handshakes.discard(self)
        self._pace.loop.remove_reader(self._descriptor)
        self._watch_for_room(False)
        self._secured.free()
        self._connection.close()
