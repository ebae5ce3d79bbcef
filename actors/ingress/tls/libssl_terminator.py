"""TLS by the system's libssl, on the connections' own descriptors."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Sequence
from typing import Any

from ....runtime.host.kernel_tls import why_not
from ..certificates.certificate import Certificate, describe_certificates
from ..tickets.memory import Keys, OwnKeys
from ..tickets.terms import policy_of
from .context import ServerContext
from .libssl import VERIFY_NONE, Libssl
from .libssl_handshake import LibsslHandshake
from .shared import Shared
from .terminator import ALPN, Ended, Minimum, ProtocolFactory, Refused
from .tickets import Tickets

logger = logging.getLogger("slabwire")


class LibsslTerminator:
    """TLS 1.3, and 1.2 where `minimum` says so. Session tickets are good wherever their `keys` are known, else for this
    terminator alone.

    `kernel_tls`: the kernel is asked to encrypt what is sent; where it has no TLS, libssl does, and the log says so.

    An idle connection holds no buffer. Raises CertificateError if libssl does not take the certificates. All
    connections of one terminator are on one loop.
    """

    def __init__(
        self,
        library: Libssl,
        certificates: Sequence[Certificate],
        minimum: Minimum = "1.3",
        keys: Keys | None = None,
        refused: Refused | None = None,
        *,
        kernel_tls: bool = False,
    ) -> None:
        self._certificates = certificates
        self._minimum = minimum
        self._library = library
        self._tickets = Tickets(library, keys or OwnKeys(), policy_of(minimum, VERIFY_NONE, b""), refused)
        self._kernel_refusal = why_not() if kernel_tls else "nobody has asked for it"
        if kernel_tls and self._kernel_refusal:
            logger.warning("kernel_tls=True is not to be had, for %s: libssl encrypts", self._kernel_refusal)
        self._context = self._context_of(certificates)
        self._shared: Shared | None = None

    def secure(
        self,
        connection: socket.socket,
        protocol_factory: ProtocolFactory,
        ended: Ended,
    ) -> LibsslHandshake:
        """As Terminator says."""
        if self._shared is None:
            self._shared = Shared(asyncio.get_running_loop(), self._library, self._context)
        return LibsslHandshake(self._shared, connection, protocol_factory, ended)

    def close(self) -> None:
        """As Terminator says."""
        shared, self._shared = self._shared, None
        if shared is not None:
            shared.watcher.close()

    def swap(self, certificates: Sequence[Certificate]) -> None:
        """As Terminator says. The old SSL_CTX lives for as long as its connections do: each holds a reference."""
        fresh = self._context_of(certificates)
        self._context, self._certificates = fresh, certificates
        if self._shared is not None:
            self._shared.context = fresh

    def _context_of(self, certificates: Sequence[Certificate]) -> ServerContext:
        asks_kernel = not self._kernel_refusal
        return ServerContext(self._library, certificates, self._minimum, self._tickets, asks_kernel=asks_kernel)

    def describe(self) -> dict[str, Any]:
        """As Terminator says; also the key exchange's groups and how the certificate is compressed, the best first, and
        `tickets`, as `Tickets.describe` says. `kernel` tells why the kernel encrypts nothing ("refusal", or None), and
        how many connections it has served so ("connections").
        """
        return {
            "engine": "libssl",
            "library": self._library.version,
            "minimum": f"TLSv{self._minimum}",
            "alpn": list(ALPN),
            "groups": self._context.groups,
            "certificate_compression": self._context.compressions,
            "tickets": self._tickets.describe(),
            "kernel": {
                "refusal": self._kernel_refusal or None,
                "connections": 0 if self._shared is None else self._shared.in_kernel,
            },
            **describe_certificates(self._certificates),
        }
