"""The life of a remote client's session: its states, what may happen, and which state follows. Pure."""

from __future__ import annotations

from enum import StrEnum

from ..state_table import StateTable


class State(StrEnum):
    """Where a session stands."""

    UNCONNECTED = "unconnected"  # no transport, or none yet
    GREETED = "greeted"  # the hello is said
    READY = "ready"  # welcomed: calls may begin
    REFUSED = "refused"  # there will be no welcome, unless somebody asks again
    CLOSED = "closed"


class Event(StrEnum):
    """What happens to a session."""

    CONNECTED = "connected"  # the transport is there (again)
    LOST = "lost"  # its transport
    WELCOMED = "welcomed"
    TURNED_AWAY = "turned away"  # by the gateway's word, by its handshake, or since what it says makes no sense
    FORGOTTEN = "forgotten"  # the gateway does not know this client any more
    ASKED_AGAIN = "asked again"  # a caller that waited has heard the refusal
    CLOSED = "closed"


_UNCONNECTED, _GREETED, _READY, _REFUSED, _CLOSED = State

# The gateway and the network may do anything at any time, so their events have a row in every state. Nobody asks again
# but whoever has heard a refusal.
_ROWS: dict[State, dict[Event, State]] = {
    **{
        state: {
            Event.CONNECTED: _GREETED,
            Event.LOST: _UNCONNECTED,
            Event.WELCOMED: _READY,
            Event.TURNED_AWAY: _REFUSED,
            Event.FORGOTTEN: _GREETED,
            Event.CLOSED: _CLOSED,
        }
        for state in (_UNCONNECTED, _GREETED, _READY)
    },
    _REFUSED: {
        Event.CONNECTED: _GREETED,
        Event.LOST: _REFUSED,
        Event.WELCOMED: _READY,
        Event.TURNED_AWAY: _REFUSED,
        Event.FORGOTTEN: _GREETED,
        Event.ASKED_AGAIN: _GREETED,
        Event.CLOSED: _CLOSED,
    },
    _CLOSED: {event: _CLOSED for event in Event if event is not Event.ASKED_AGAIN},
}
SESSION: StateTable[State, Event] = StateTable("a session", _ROWS)
