"""What ends TLS, whichever engine does it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

from ..certificates.certificate import Certificate
from .outcome import Outcome

ALPN = ("http/1.1",)
# A handshake takes two round trips: whoever needs longer than this holds a place and gives nothing for it.
HANDSHAKE_TIMEOUT_S = 10.0

ProtocolFactory = Callable[[], asyncio.Protocol]
Ended = Callable[[Outcome], object]
# Told why a ticket was not taken, in one of the words of `outcome.REFUSALS`.
Refused = Callable[[str], object]
# The oldest version of TLS that is spoken.
Minimum = Literal["1.3", "1.2"]
# Of TLS 1.2, in OpenSSL's words: authenticated encryption, and keys that are forgotten (RFC 9325, section 4.2).
SUITES_OF_1_2 = "ECDHE+AESGCM:ECDHE+CHACHA20"


class Handshake(Protocol):
    """A handshake in progress."""

    def cancel(self) -> object:
        """Breaks it off. It has ended when its `ended` is called."""


class Terminator(Protocol):
    """Ends TLS: what the application's protocol reads and writes is plain, what travels is not."""

    def secure(
        self,
        connection: socket.socket,
        protocol_factory: ProtocolFactory,
        ended: Ended,
    ) -> Handshake:
        """Begins to shake hands on an accepted connection, on the running loop, and connects a protocol to it then.

        From now on `connection` is the terminator's, which closes it if the handshake fails or is broken off. `ended`
        is called once, and perhaps before this comes back: with what was agreed on, with the error if the handshake has
        failed or taken too long, or with None if it was broken off. A client that speaks plain HTTP is told so, in
        words that it understands.

        The protocol's transport must answer `get_extra_info` to "socket", and to "sslcontext" with something true:
        that is how the protocol knows that it is https. To "ssl_object" it answers with what tells `version()`,
        `cipher()`, `selected_alpn_protocol()` and `session_reused` as `ssl.SSLObject` does.
        """

    def close(self) -> None:
        """Gives back what it holds beside its connections, once there are none. It may be used again."""

    def swap(self, certificates: Sequence[Certificate]) -> None:
        """From now on new connections get these. What is open goes on as it is, and tickets are still good.

        Raises CertificateError if they are not taken; then nothing has changed.
        """

    def describe(self) -> dict[str, Any]:
        """For people: {"engine", "library", "minimum", "alpn"}, what `describe_certificates` tells, and what else there
        is.
        """
