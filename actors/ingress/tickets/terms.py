"""What a ticket is bound to, and why one that was offered is refused. Pure."""

from __future__ import annotations

import struct
from enum import StrEnum
from hashlib import sha256
from typing import NamedTuple

from .key import Rules, S, TicketKey
from .states import State

_HALF_NBYTES = 16
_FORM = struct.Struct("<BQQ")
_VERSION = 1


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


class Binding(NamedTuple):
    """Whom a session is for: libssl's session id context."""

    name: bytes
    policy: bytes

    @classmethod
    def of(cls, server_name: bytes, policy: bytes) -> Binding:
        """`server_name`: as the client says it, or empty. Names differ in more than their case."""
        return cls(sha256(server_name.lower()).digest()[:_HALF_NBYTES], policy)

    @classmethod
    def read(cls, context: bytes) -> Binding:
        return cls(context[:_HALF_NBYTES], context[_HALF_NBYTES:])


class Terms(NamedTuple):
    """What we note in a ticket: when the last full handshake was, in seconds since 1970, and the epoch."""

    full_at: int
    epoch: int

    def packed(self) -> bytes:
        return _FORM.pack(_VERSION, *self)

    @classmethod
    def read(cls, data: bytes) -> Terms | None:
        """None for what is in no form that we know."""
        if len(data) != _FORM.size or data[0] != _VERSION:
            return None
        return cls(*_FORM.unpack(data)[1:])

    def lifetime_s(self, rules: Rules, now: int) -> int:
        """For how long a ticket that is given now is good: not beyond the end of the chain."""
        return max(1, min(rules.lifetime // S, self.full_at + rules.chain // S - now))


def why_not_opened(key: TicketKey | None, now_ns: int) -> Refusal:
    """Of a ticket that could not be opened with the key that it names."""
    if key is None:
        return Refusal.UNKNOWN_KEY
    if key.state is State.REVOKED:
        return Refusal.REVOKED
    return Refusal.EXPIRED if key.expire_at and key.expire_at <= now_ns else Refusal.MALFORMED


def why_not_taken(terms: Terms | None, then: Binding, here: Binding, rules: Rules, now: int) -> Refusal | None:
    """Of a ticket that was opened, given `then` and offered `here`. None: nothing is wrong with it."""
    if then.policy != here.policy or (terms is not None and terms.epoch != rules.epoch):
        return Refusal.POLICY_CHANGED
    if then.name != here.name:
        return Refusal.OTHER_NAME
    if terms is None:
        return Refusal.MALFORMED
    return Refusal.CHAIN_ENDED if terms.full_at + rules.chain // S <= now else None
