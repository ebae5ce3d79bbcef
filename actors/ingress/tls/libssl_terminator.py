"""TLS by the system's libssl, on the connections' own descriptors."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from typing import Any

from ..certificates.certificate import Certificate, describe_certificates
from ..tickets.memory import Keys, OwnKeys
from ..tickets.terms import policy_of
from .context import ServerContext
from .libssl import VERIFY_NONE, Libssl
from .libssl_handshake import LibsslHandshake
from .shared import Shared
from .terminator import ALPN, Ended, Minimum, ProtocolFactory, Refused
from .tickets import Tickets


class LibsslTerminator:
    """TLS 1.3, and 1.2 where `minimum` says so. Session tickets are good wherever their `keys` are known, else for this
    terminator alone.

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
    ) -> None:
        self._certificates = certificates
        self._minimum = minimum
        self._library = library
        self._tickets = Tickets(library, keys or OwnKeys(), policy_of(minimum, VERIFY_NONE, b""), refused)
        self._context = ServerContext(library, certificates, minimum, self._tickets)
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
        fresh = ServerContext(self._library, certificates, self._minimum, self._tickets)
        self._context, self._certificates = fresh, certificates
        if self._shared is not None:
            self._shared.context = fresh

    def describe(self) -> dict[str, Any]:
        """As Terminator says; also the key exchange's groups and how the certificate is compressed, the best first, and
        `tickets`, as `Tickets.describe` says.
        """
        return {
            "engine": "libssl",
            "library": self._library.version,
            "minimum": f"TLSv{self._minimum}",
            "alpn": list(ALPN),
            "groups": self._context.groups,
            "certificate_compression": self._context.compressions,
            "tickets": self._tickets.describe(),
            **describe_certificates(self._certificates),
        }
