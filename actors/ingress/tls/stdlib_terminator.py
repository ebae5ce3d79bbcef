"""TLS by Python's own `ssl`, where no libssl can be loaded."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Any

from . import terminator
from .certificate import Certificate, CertificateError
from .hello import check_hello
from .outcome import Agreed, Outcome, agreed_by
from .terminator import ALPN, SUITES_OF_1_2, Ended, Minimum, ProtocolFactory

# What is lost with this engine: said at start.
LOST = (
    "an idle connection takes 264 KiB and not 20, the groups of the key exchange cannot be chosen, the certificate is "
    "not compressed, session tickets are good for one process alone, and a client that speaks another protocol only "
    "(ALPN) is not told so"
)


class StdlibTerminator:
    """TLS 1.3, and 1.2 where `minimum` says so. Session tickets are good for this process alone.

    Raises CertificateError if OpenSSL does not take the certificate.
    """

    def __init__(self, certificate: Certificate, minimum: Minimum = "1.3") -> None:
        self.certificate = certificate
        self._minimum = minimum
        self._context = _context(certificate, minimum)

    def secure(
        self,
        connection: socket.socket,
        protocol_factory: ProtocolFactory,
        ended: Ended,
    ) -> asyncio.Task[Agreed]:
        """As Terminator says."""
        task = asyncio.create_task(self._shake_hands(connection, protocol_factory))
        task.add_done_callback(lambda task: ended(_outcome_of(task)))
        return task

    async def _shake_hands(self, connection: socket.socket, protocol_factory: ProtocolFactory) -> Agreed:
        await _await_hello(connection)
        began = asyncio.get_running_loop().time()
        transport, _ = await asyncio.get_running_loop().connect_accepted_socket(
            protocol_factory, connection, ssl=self._context, ssl_handshake_timeout=terminator.HANDSHAKE_TIMEOUT_S
        )
        took_s = asyncio.get_running_loop().time() - began
        return agreed_by(transport.get_extra_info("ssl_object"), took_s)

    def describe(self) -> dict[str, Any]:
        """As Terminator says."""
        return {
            "engine": "stdlib",
            "library": ssl.OPENSSL_VERSION,
            "minimum": f"TLSv{self._minimum}",
            "alpn": list(ALPN),
            "certificate": str(self.certificate.public),
            "not_after": self.certificate.not_after.isoformat(),
        }


def _outcome_of(task: asyncio.Task[Agreed]) -> Outcome:
    if task.cancelled():
        return None
    error = task.exception()
    if error is None:
        return task.result()
    if isinstance(error, OSError):
        return error
    task.get_loop().call_exception_handler({"message": "a handshake failed", "exception": error})
    return None


async def _await_hello(connection: socket.socket) -> None:
    """Raises OSError if no handshake begins; the connection is closed then, as it is on cancellation."""
    try:
        async with asyncio.timeout(terminator.HANDSHAKE_TIMEOUT_S):
            await _readable(connection)
            check_hello(connection)
    except BaseException:
        connection.close()
        raise


async def _readable(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(connection, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(connection)


def _context(certificate: Certificate, minimum: Minimum) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2 if minimum == "1.2" else ssl.TLSVersion.TLSv1_3
    context.set_ciphers(SUITES_OF_1_2)
    context.set_alpn_protocols(list(ALPN))
    try:
        context.load_cert_chain(certificate.chain, certificate.key)
    except OSError as error:
        raise CertificateError(
            f"OpenSSL does not take the certificate {certificate.chain} with the key {certificate.key}: {error}"
        ) from None
    return context
