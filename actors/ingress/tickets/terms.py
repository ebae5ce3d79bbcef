"""What a ticket is bound to, and why one that was offered is refused. Pure."""

from __future__ import annotations

import struct
from enum import StrEnum
from functools import lru_cache
from hashlib import sha256

from .key import Rules, S, TicketKey
from .states import State

_HALF_NBYTES = 16
_FORM = struct.Struct("<BQ")
_VERSION = 2
# Clients use few names, but each may use its own, of up to 16 KiB.
_NAMES = 32


class Refusal(StrEnum):
    """All reasons why a session is not resumed. A full handshake follows."""

    UNKNOWN_KEY = "unknown_key"  # another graph's, or one that is long gone
    EXPIRED = "expired"
    REVOKED = "revoked"
    OTHER_NAME = "other_name"  # given for another server name
    CHAIN_ENDED = "chain_ended"  # the last full handshake is too long ago
    POLICY_CHANGED = "policy_changed"  # given under other rules for clients, or in another epoch
    MALFORMED = "malformed"


def policy_of(minimum: str, verify_mode: int, authorities: bytes) -> bytes:
    """What clients have to fulfil, as 16 bytes: `authorities` are the contents of the CAs that their certificates are
    verified by.
    """
    return sha256(repr((minimum, verify_mode, sha256(authorities).digest())).encode()).digest()[:_HALF_NBYTES]


@lru_cache(_NAMES)
def binding_of(server_name: bytes, policy: bytes, epoch: int) -> bytes:
    """Whom a session is for: libssl's session id context, 32 bytes. `server_name`: as the client says it, or empty.
    Names differ in more than their case.
    """
    rules = sha256(policy + epoch.to_bytes(8, "little")).digest()
    return sha256(server_name.lower()).digest()[:_HALF_NBYTES] + rules[:_HALF_NBYTES]


def packed(full_at: int) -> bytes:
    """What we note in a ticket that a resumption brings: when the last full handshake was, in seconds since 1970. One
    that a full handshake brings needs no note, since a session knows when it was made.
    """
    return _FORM.pack(_VERSION, full_at)


def read(noted: bytes) -> int | None:
    """When the last full handshake was; None for what is in no form that we know."""
    if len(noted) != _FORM.size or noted[0] != _VERSION:
        return None
    return int(_FORM.unpack(noted)[1])


def why_not_opened(key: TicketKey | None, now_ns: int) -> Refusal:
    """Of a ticket that could not be opened with the key that it names."""
    if key is None:
        return Refusal.UNKNOWN_KEY
    if key.state is State.REVOKED:
        return Refusal.REVOKED
    return Refusal.EXPIRED if key.expire_at and key.expire_at <= now_ns else Refusal.MALFORMED


def why_not_taken(full_at: int | None, then: bytes, here: bytes, rules: Rules, now: int) -> Refusal | None:
    """Of a ticket that was opened, bound to `then` and offered `here`. None: nothing is wrong with it."""
    if then != here:
        is_policy = then[_HALF_NBYTES:] != here[_HALF_NBYTES:]
        return Refusal.POLICY_CHANGED if is_policy else Refusal.OTHER_NAME
    if full_at is None:
        return Refusal.MALFORMED
    return Refusal.CHAIN_ENDED if full_at + rules.chain // S <= now else None
