"""TLS by the system's libssl, on the connections' own descriptors."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from .certificate import Certificate
from .context import ServerContext
from .libssl import Libssl
from .libssl_handshake import LibsslHandshake
from .shared import Shared
from .terminator import ALPN, Ended, Minimum, ProtocolFactory


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
