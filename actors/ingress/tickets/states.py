"""The life of a ticket key: its states, what may happen to it, and which state follows. Pure."""

from __future__ import annotations

from enum import StrEnum

from ....runtime.state_table import StateTable


class State(StrEnum):
    """What a key may be used for."""

    GONE = "gone"  # its place is free
    PENDING = "pre-rotate"  # opens tickets, and seals none yet
    ACTIVE = "active"  # seals tickets, and opens them
    DEPRECATED = "deprecated"  # opens tickets until the last that it has sealed is over
    REVOKED = "revoked"  # its name alone is left, so that its tickets are known


class Event(StrEnum):
    """What happens to a key."""

    MADE = "made"
    ACTIVATED = "activated"
    REPLACED = "replaced"  # another has become active
    EXPIRED = "expired"
    REVOKED = "revoked"


# An active key does not expire: while nobody turns the ring, it goes on.
_ROWS: dict[State, dict[Event, State]] = {
    State.GONE: {Event.MADE: State.PENDING},
    State.PENDING: {Event.ACTIVATED: State.ACTIVE, Event.REVOKED: State.REVOKED},
    State.ACTIVE: {Event.REPLACED: State.DEPRECATED, Event.REVOKED: State.REVOKED},
    State.DEPRECATED: {Event.EXPIRED: State.GONE, Event.REVOKED: State.REVOKED},
    State.REVOKED: {Event.EXPIRED: State.GONE},
}
KEY: StateTable[State, Event] = StateTable("a ticket key", _ROWS)
# Those that open tickets.
OPENING = frozenset({State.PENDING, State.ACTIVE, State.DEPRECATED})
