"""TLS by Python's own `ssl`, where no libssl can be loaded."""

from __future__ import annotations

import asyncio
import base64
import os
import socket
import ssl
from collections.abc import Sequence
from typing import Any

from ....runtime.host.libssl import LOST
from ..certificates.certificate import Certificate, CertificateError, describe_certificates
from . import terminator
from .hello import check_hello
from .outcome import Agreed, Outcome, agreed_by
from .terminator import ALPN, SUITES_OF_1_2, Ended, Minimum, ProtocolFactory


class StdlibTerminator:
    """TLS 1.3, and 1.2 where `minimum` says so. Session tickets are good for this process alone.

    Raises CertificateError if OpenSSL does not take the certificates.
    """

    def __init__(self, certificates: Sequence[Certificate], minimum: Minimum = "1.3") -> None:
        self._certificates = certificates
        self._minimum = minimum
        self._context = _context(certificates, minimum)

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

    def close(self) -> None:
        """As Terminator says: there is nothing."""

    def swap(self, certificates: Sequence[Certificate]) -> None:
        """As Terminator says. Keys of tickets stay with their context, which can be given certificates and cannot lose
        one: where a kind is there no longer, a fresh one takes its place, and tickets are good for nothing.
        """
        fresh = _context(certificates, self._minimum)
        if {each.kind for each in self._certificates} <= {each.kind for each in certificates}:
            _load(self._context, certificates)
        else:
            self._context = fresh
        self._certificates = certificates

    def describe(self) -> dict[str, Any]:
        """As Terminator says; and by their names the features that are `lost`."""
        return {
            "engine": "stdlib",
            "library": ssl.OPENSSL_VERSION,
            "minimum": f"TLSv{self._minimum}",
            "alpn": list(ALPN),
            "lost": list(LOST),
            **describe_certificates(self._certificates),
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


def _context(certificates: Sequence[Certificate], minimum: Minimum) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2 if minimum == "1.2" else ssl.TLSVersion.TLSv1_3
    context.set_ciphers(SUITES_OF_1_2)
    context.set_alpn_protocols(list(ALPN))
    _load(context, certificates)
    return context


def _load(context: ssl.SSLContext, certificates: Sequence[Certificate]) -> None:
    for each in certificates:
        try:
            _load_one(context, each)
        except OSError as error:
            raise CertificateError(
                f"OpenSSL does not take the certificate {each.chain} with the key {each.key}: {error}"
            ) from None


def _load_one(context: ssl.SSLContext, certificate: Certificate) -> None:
    """From memory, by the name of a file that has none: what was checked. Files may have changed since."""
    key = b"-----BEGIN PRIVATE KEY-----\n%s-----END PRIVATE KEY-----\n" % base64.encodebytes(certificate.key_der)
    chain = "".join(map(ssl.DER_cert_to_PEM_cert, certificate.chain_der)).encode()
    with open(os.memfd_create("slabwire:certificate", os.MFD_CLOEXEC), "wb") as file:
        file.write(key + chain)
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{file.fileno()}")
