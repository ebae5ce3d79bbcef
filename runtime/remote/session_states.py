"""The life of a remote client's session: its states, what may happen, and which state follows. Pure."""

from __future__ import annotations

from enum import Enum


class State(Enum):
    """Where a session stands."""

    UNCONNECTED = "unconnected"  # no transport, or none yet
    GREETED = "greeted"  # the hello is said
    READY = "ready"  # welcomed: calls may begin
    REFUSED = "refused"  # there will be no welcome, unless somebody asks again
    CLOSED = "closed"


class Event(Enum):
    """What happens to a session."""

    CONNECTED = "connect"  # the transport is there (again)
    LOST = "lose its transport"
    WELCOMED = "be welcomed"
    TURNED_AWAY = "be turned away"  # by the gateway's word, by its handshake, or since what it says makes no sense
    FORGOTTEN = "be forgotten"  # the gateway does not know this client any more
    ASKED_AGAIN = "ask again"  # a caller that waited has heard the refusal
    CLOSED = "be closed"


_U, _G, _R, _N, _C = State

# The gateway and the network may do anything at any time, so their events have a row in every state. Nobody asks again
# but whoever has heard a refusal.
TRANSITIONS: dict[tuple[State, Event], State] = {
    **dict.fromkeys([(state, Event.CONNECTED) for state in (_U, _G, _R, _N)], _G),
    **dict.fromkeys([(state, Event.LOST) for state in (_U, _G, _R)], _U),
    (_N, Event.LOST): _N,
    **dict.fromkeys([(state, Event.WELCOMED) for state in (_U, _G, _R, _N)], _R),
    **dict.fromkeys([(state, Event.TURNED_AWAY) for state in (_U, _G, _R, _N)], _N),
    **dict.fromkeys([(state, Event.FORGOTTEN) for state in (_U, _G, _R, _N)], _G),
    (_N, Event.ASKED_AGAIN): _G,
    **dict.fromkeys([(state, Event.CLOSED) for state in State], _C),
    **dict.fromkeys([(_C, event) for event in Event if event is not Event.ASKED_AGAIN], _C),
}


def following(state: State, event: Event) -> State:
    """The state after an event. Raises RuntimeError, for a fault of ours, where it cannot happen in this state."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise RuntimeError(f"a session that is {state.value} cannot {event.value}") from None
