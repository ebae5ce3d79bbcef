"""Where connections come in, and how they are secured. There is no way in without TLS."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Protocol

from ....runtime.errors import SlabwireError
from .certificate import Certificate, CertificateError

logger = logging.getLogger("slabwire")

ALPN = ("http/1.1",)
# A handshake takes two round trips: whoever needs longer than this holds a place and gives nothing for it.
HANDSHAKE_TIMEOUT_S = 10.0
# Connections that the kernel keeps for us while we are busy; Linux caps it at net.core.somaxconn.
BACKLOG = 512
# An accept that failed, for want of descriptors or memory, is tried again after this time.
ACCEPT_AGAIN_S = 1.0
# A name may stand for addresses that this machine does not have: "localhost" is ::1, too, where IPv6 is switched off.
_NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
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


class ListenError(SlabwireError):
    """An address at which no connections can be taken."""

    code = "listen"


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

    def open(self, host: str, port: int) -> None:
        """Begins to listen; `port` tells from then on where. Raises ListenError."""
        self._listeners = open_listeners(host, port)
        self.port = int(self._listeners[0].getsockname()[1])
        self._accepting = [asyncio.create_task(self._accept(each)) for each in self._listeners]

    async def close(self) -> None:
        """Listens no more, and breaks off handshakes in progress."""
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


def open_listeners(host: str, port: int) -> list[socket.socket]:
    """Listening sockets, non-blocking, at every address of `host`, all on one port; port 0 takes any free one.

    Raises ListenError: the host is unknown, or the address is taken or not to be had.
    """
    listeners: list[socket.socket] = []
    refused: OSError | None = None
    try:
        for family, address in _addresses(host, port):
            taken = listeners[0].getsockname()[1] if listeners else port
            try:
                listeners.append(_listener(family, (address, taken)))
            except OSError as error:
                if error.errno not in _NOT_HERE:
                    raise
                refused = error
        if refused is not None and not listeners:
            raise refused
    except OSError as error:
        for each in listeners:
            each.close()
        raise _refusal(host, port, error) from None
    return listeners


def _addresses(host: str, port: int) -> list[tuple[socket.AddressFamily, str]]:
    """The addresses that `host` stands for, each once. Raises OSError for a name that stands for none."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return list(dict.fromkeys((family, str(address[0])) for family, _, _, _, address in found))


def _listener(family: socket.AddressFamily, address: tuple[str, int]) -> socket.socket:
    # asyncio sets TCP_NODELAY only on sockets whose protocol is named. Without it each handshake, and each answer
    # that is written in two pieces, waits 40 ms for an acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        # A successor takes the address at once, though connections of its predecessor linger in TIME_WAIT.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def _refusal(host: str, port: int, error: OSError) -> ListenError:
    place = f"cannot listen on {authority(host, port)}"
    if isinstance(error, socket.gaierror):
        return ListenError(f"{place}: the host is unknown ({error.strerror}); give an address of this machine as host=")
    if error.errno == errno.EADDRINUSE:
        remedy = f"end the program that has it (`ss -ltnp 'sport = :{port}'` shows it), or choose another port="
        return ListenError(f"{place}: the address is in use; {remedy}")
    if error.errno == errno.EACCES:
        return ListenError(f"{place}: ports below 1024 are the system's; choose another port=")
    return ListenError(f"{place}: {error.strerror}; give an address of this machine as host=")


def authority(host: str, port: int) -> str:
    """Host and port as they stand in a URL: IPv6 addresses in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
