"""Where connections come in, and how they are secured. There is no way in without TLS."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, Protocol

from .certificate import Certificate, CertificateError

logger = logging.getLogger("slabwire")

ALPN = ("http/1.1",)
# A handshake takes two round trips: whoever needs longer than this holds a place and gives nothing for it.
HANDSHAKE_TIMEOUT_S = 10.0
# An accept that failed, for want of descriptors or memory, is tried again after this time.
ACCEPT_AGAIN_S = 1.0
# The type of the record that begins a handshake (RFC 8446, section 5.1). No HTTP request begins with it.
_HANDSHAKE = b"\x16"
# As much of a request as is taken in, so that the answer to it is not lost in a reset.
_REQUEST_NBYTES = 1 << 16
_TEXT = b"This port speaks https: ask for https:// in place of http://.\n"
_ANSWER = (
    b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-type: text/plain; charset=utf-8\r\n"
    b"content-length: %d\r\n\r\n%b" % (len(_TEXT), _TEXT)
)

ProtocolFactory = Callable[[], asyncio.Protocol]


class Terminator(Protocol):
    """Ends TLS: what the application's protocol reads and writes is plain, what travels is not."""

    async def secure(self, connection: socket.socket, protocol_factory: ProtocolFactory) -> None:
        """Shakes hands on an accepted connection and connects a protocol to it. Called on the running loop.

        From now on `connection` is the transport's. The transport must answer `get_extra_info` to "socket", and to
        "sslcontext" with something true: that is how the protocol knows that it is https. Raises OSError, as
        `ssl.SSLError` is one, if the handshake fails or takes too long; the connection is closed then, as it is on
        cancellation.
        """

    def describe(self) -> dict[str, Any]:
        """For people: {"engine", "library", "minimum", "alpn", "certificate", "not_after"}, and what else there is."""


class StdlibTerminator:
    """TLS 1.3 by Python's own `ssl`. Session tickets are good for this process alone; there is no early data.

    Raises CertificateError if OpenSSL does not take the certificate.
    """

    def __init__(self, certificate: Certificate) -> None:
        self.certificate = certificate
        self._context = _context(certificate)

    async def secure(self, connection: socket.socket, protocol_factory: ProtocolFactory) -> None:
        """As Terminator says."""
        await asyncio.get_running_loop().connect_accepted_socket(
            protocol_factory, connection, ssl=self._context, ssl_handshake_timeout=HANDSHAKE_TIMEOUT_S
        )

    def describe(self) -> dict[str, Any]:
        """As Terminator says."""
        return {
            "engine": "stdlib",
            "library": ssl.OPENSSL_VERSION,
            "minimum": "TLSv1.3",
            "alpn": list(ALPN),
            "certificate": str(self.certificate.public),
            "not_after": self.certificate.not_after.isoformat(),
        }


def _context(certificate: Certificate) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(list(ALPN))
    try:
        context.load_cert_chain(certificate.chain, certificate.key)
    except OSError as error:
        raise CertificateError(
            f"OpenSSL does not take the certificate {certificate.chain} with the key {certificate.key}: {error}"
        ) from None
    return context


class Entrance:
    """Accepts connections and has them secured. Opened and closed on one running loop.

    `make_room` is awaited with a connection in hand: until it comes back, no other is taken from the kernel.
    `ended` is called whenever a handshake has ended, well or not.
    """

    def __init__(
        self,
        terminator: Terminator,
        protocol_factory: ProtocolFactory,
        make_room: Callable[[], Awaitable[None]],
        ended: Callable[[], None],
    ) -> None:
        self.handshakes: dict[asyncio.Task[None], float] = {}  # with when they began, on the loop's clock
        self.failed_handshakes = 0
        self.port = 0
        self._terminator = terminator
        self._protocol_factory = protocol_factory
        self._make_room = make_room
        self._ended = ended
        self._listeners: list[socket.socket] = []
        self._accepting: list[asyncio.Task[None]] = []

    def open(self, listeners: Sequence[socket.socket]) -> None:
        """Begins to accept what comes to these sockets, and takes them over; `port` tells from then on where they
        listen.
        """
        self._listeners = list(listeners)
        self.port = int(self._listeners[0].getsockname()[1])
        self._accepting = [asyncio.create_task(self._accept(each)) for each in self._listeners]

    async def close(self) -> None:
        """Accepts no more, and breaks off handshakes in progress."""
        begun = [*self._accepting, *self.handshakes]
        for task in begun:
            task.cancel()
        await asyncio.gather(*begun, return_exceptions=True)
        for listener in self._listeners:
            listener.close()

    def slow_handshakes(self) -> Iterator[tuple[float, Callable[[], object]]]:
        """For each handshake in progress the seconds since it began, and how to break it off."""
        now = asyncio.get_running_loop().time()
        for task, began in self.handshakes.items():
            yield now - began, task.cancel

    async def _accept(self, listener: socket.socket) -> None:
        while True:
            connection = await _next(listener)
            try:
                await self._make_room()
            except BaseException:
                connection.close()
                raise
            task = asyncio.create_task(self._secure(connection))
            self.handshakes[task] = asyncio.get_running_loop().time()
            task.add_done_callback(self._shook_hands)

    async def _secure(self, connection: socket.socket) -> None:
        try:
            await _await_tls(connection)
            await self._terminator.secure(connection, self._protocol_factory)
        except OSError as error:
            self.failed_handshakes += 1
            logger.debug("a handshake failed: %s", error)

    def _shook_hands(self, task: asyncio.Task[None]) -> None:
        self.handshakes.pop(task, None)
        self._ended()


async def _await_tls(connection: socket.socket) -> None:
    """Raises OSError if no handshake begins; the connection is closed then, as it is on cancellation."""
    try:
        async with asyncio.timeout(HANDSHAKE_TIMEOUT_S):
            await _check_for_tls(connection)
    except BaseException:
        connection.close()
        raise


async def _check_for_tls(connection: socket.socket) -> None:
    """Waits for the first byte, which stays to be read. Raises ConnectionError if it begins no handshake.

    A client that speaks plain HTTP is told so, in words that it understands. The connection stays open.
    """
    await _readable(connection)
    first = connection.recv(1, socket.MSG_PEEK)
    if not first:
        raise ConnectionAbortedError("the client left before it had said anything")
    if first != _HANDSHAKE:
        with contextlib.suppress(OSError):
            connection.recv(_REQUEST_NBYTES)
            connection.send(_ANSWER)
            connection.shutdown(socket.SHUT_WR)
        raise ConnectionError("the client does not speak TLS")


async def _readable(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(connection, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(connection)


async def _next(listener: socket.socket) -> socket.socket:
    """The next connection, however long it takes: what is wrong with one, or with the machine, ends no service."""
    while True:
        try:
            connection, _ = await asyncio.get_running_loop().sock_accept(listener)
        except ConnectionError:
            continue  # gone before we came to it
        except OSError as error:
            logger.error("no connection can be accepted: %s", error.strerror)
            await asyncio.sleep(ACCEPT_AGAIN_S)
        else:
            return connection


def authority(host: str, port: int) -> str:
    """Host and port as they stand in a URL: IPv6 addresses in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
