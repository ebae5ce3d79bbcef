"""The life of a secured connection: its states, what may happen, and which state follows. Pure.

What a handshake finds out on its way (a certificate that was asked for, a session that was resumed, data that came
early) will be states between HANDSHAKING and OPEN.
"""

from __future__ import annotations

from enum import StrEnum

from ....runtime.state_table import StateTable


class State(StrEnum):
    """Where a connection stands."""

    ACCEPTED = "accepted"  # nothing has come yet, and nothing is held for it but its descriptor
    HANDSHAKING = "handshaking"
    OPEN = "open"
    DRAINING = "draining"  # we close: what is queued still goes out
    LEFT = "left"  # the peer closes: what is queued still goes out
    CLOSING = "closing"  # our good-bye follows, or has been said; the peer's is waited for
    CLOSED = "closed"


class Event(StrEnum):
    """What happens to a connection."""

    HELLO = "hello"  # a handshake begins
    SHOOK_HANDS = "shook hands"
    CLOSED_HERE = "closed here"
    CLOSED_THERE = "closed there"  # the peer's close_notify
    DRAINED = "drained"  # nothing is queued any more
    LOST = "lost"  # a fault, an end without good-bye, time that ran out, or our will


_ACCEPTED, _HANDSHAKING, _OPEN, _DRAINING, _LEFT, _CLOSING, _CLOSED = State

# A connection may be lost at any time, and we may close it at any time that it is known outside of here. The peer's
# good-bye is read wherever we read, which is not where it has been said already.
_ROWS: dict[State, dict[Event, State]] = {
    _ACCEPTED: {Event.HELLO: _HANDSHAKING, Event.LOST: _CLOSED},
    _HANDSHAKING: {Event.SHOOK_HANDS: _OPEN, Event.LOST: _CLOSED},
    _OPEN: {Event.CLOSED_HERE: _DRAINING, Event.CLOSED_THERE: _LEFT, Event.LOST: _CLOSED},
    _DRAINING: {
        Event.CLOSED_HERE: _DRAINING,
        Event.CLOSED_THERE: _LEFT,
        Event.DRAINED: _CLOSING,
        Event.LOST: _CLOSED,
    },
    _LEFT: {Event.CLOSED_HERE: _LEFT, Event.DRAINED: _CLOSED, Event.LOST: _CLOSED},
    _CLOSING: {Event.CLOSED_HERE: _CLOSING, Event.CLOSED_THERE: _CLOSED, Event.LOST: _CLOSED},
    _CLOSED: {Event.CLOSED_HERE: _CLOSED, Event.LOST: _CLOSED},
}
CONNECTION: StateTable[State, Event] = StateTable("a secured connection", _ROWS)
