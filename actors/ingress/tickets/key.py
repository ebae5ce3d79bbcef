"""One key that tickets are sealed with, and the rules that all keys of a ring live by."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace

from .states import KEY, Event, State

NAME_NBYTES, SECRET_NBYTES = 16, 32
S = 1_000_000_000  # nanoseconds of one


@dataclass(frozen=True, slots=True)
class Rules:
    """How long tickets and their keys are good. Times in ns.

    `lifetime`: of a ticket. `interval`: from one active key to the next. `lead`: for so long a key is known everywhere
    before it seals. `chain`: so long after a full handshake the next one is due, however often a session was resumed.
    `epoch`: tickets of another one are refused.
    """

    lifetime: int = 2 * 3600 * S
    interval: int = 3600 * S
    lead: int = 10 * S
    chain: int = 24 * 3600 * S
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class TicketKey:
    """`name` travels in each ticket and is no secret; `aes` seals, `hmac` signs. Times in ns since 1970; 0: none.

    `activate_at`: when a key that is pending is to become active, of others when they did. `expire_at`: when nothing is
    left to be known of it.
    """

    state: State
    name: bytes
    aes: bytes = field(repr=False)
    hmac: bytes = field(repr=False)
    created: int
    activate_at: int
    expire_at: int = 0

    @classmethod
    def make(cls, now: int, activate_at: int) -> TicketKey:
        """A new one, of the kernel's random bytes."""
        name, aes, hmac = map(os.urandom, (NAME_NBYTES, SECRET_NBYTES, SECRET_NBYTES))
        return cls(KEY.after(State.GONE, Event.MADE), name, aes, hmac, now, activate_at)

    def meet(self, event: Event) -> TicketKey:
        """What it is after that. One that is revoked or gone has no secrets. Raises ImpossibleEvent."""
        state = KEY.after(self.state, event)
        if state in (State.REVOKED, State.GONE):
            return replace(self, state=state, aes=bytes(SECRET_NBYTES), hmac=bytes(SECRET_NBYTES))
        return replace(self, state=state)
