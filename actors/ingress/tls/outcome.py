"""What becomes of a handshake, in words of which there are few: clients must not be able to make up labels."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from ..tickets.terms import Refusal

# By whether a ticket was taken.
KINDS = ("full", "resumed")
VERSIONS = ("TLSv1.3", "TLSv1.2")
# In OpenSSL's names: all that TLS 1.3 has by default, then those of 1.2 that are offered.
SUITES = (
    *("TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256", "TLS_AES_128_GCM_SHA256"),
    *(
        f"ECDHE-{signed}-{rest}"
        for signed in ("ECDSA", "RSA")
        for rest in ("AES256-GCM-SHA384", "AES128-GCM-SHA256", "CHACHA20-POLY1305")
    ),
)
GROUPS = ("X25519MLKEM768", "x25519", "secp256r1", "secp384r1")
# `alert`: the client objects, to a certificate that it does not trust for one; `nothing_common`: to version, suites,
# groups or protocols; `cut`: broken off here, for want of room or at the end.
FAILURES = ("timeout", "left", "plain_http", "nothing_common", "alert", "tls", "cut")
# Why a ticket was not taken, and a full handshake followed.
REFUSALS = tuple(str(each) for each in Refusal)
# Of libssl's reasons, those that say that the two have nothing in common.
_NOTHING_COMMON = ("unsupported protocol", "no shared", "no suitable", "no application protocol", "version too low")


class NotTLS(ConnectionError):
    """The client speaks plain HTTP, or something else that is no TLS."""


class Agreed(NamedTuple):
    """What the two have agreed on. `took_s`: seconds since the client's first byte. What is not known is ""."""

    version: str
    cipher: str
    group: str
    is_resumed: bool
    took_s: float


# How a handshake ended: well, by an error, or (None) by being broken off here.
Outcome = Agreed | OSError | None


class Facts(Protocol):
    """What tells of a secured connection, as `ssl.SSLObject` does."""

    @property
    def session_reused(self) -> bool | None: ...

    def version(self) -> str | None: ...

    def cipher(self) -> tuple[str, str, int] | None: ...


def agreed_by(facts: Facts, took_s: float) -> Agreed:
    """What the two have agreed on, as far as it is told: which group is not."""
    cipher = facts.cipher()
    return Agreed(facts.version() or "", cipher[0] if cipher else "", "", bool(facts.session_reused), took_s)


def failure_of(error: OSError | None) -> str:
    """Which of `FAILURES` it is."""
    if error is None:
        return "cut"
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, NotTLS):
        return "plain_http"
    text = str(error).lower().replace("_", " ")
    if any(each in text for each in _NOTHING_COMMON):
        return "nothing_common"
    if " alert " in f" {text} ":
        return "alert"
    return "left" if isinstance(error, (ConnectionAbortedError, ConnectionResetError, BrokenPipeError)) else "tls"
