"""The life of a secured connection, over every state and every event."""

from __future__ import annotations

from itertools import product

import pytest

from slabwire.actors.ingress.tls.states import CONNECTION, Event, State
from slabwire.runtime.state_table import ImpossibleEvent

SHAKEN = (State.OPEN, State.DRAINING, State.LEFT, State.CLOSING)
FOLLOWING = {
    (State.ACCEPTED, Event.HELLO): State.HANDSHAKING,
    (State.HANDSHAKING, Event.SHOOK_HANDS): State.OPEN,
    (State.OPEN, Event.CLOSED_HERE): State.DRAINING,
    (State.OPEN, Event.CLOSED_THERE): State.LEFT,
    (State.DRAINING, Event.CLOSED_THERE): State.LEFT,
    (State.DRAINING, Event.DRAINED): State.CLOSING,
    (State.LEFT, Event.DRAINED): State.CLOSED,
    (State.CLOSING, Event.CLOSED_THERE): State.CLOSED,
    **{(state, Event.CLOSED_HERE): state for state in (*SHAKEN[1:], State.CLOSED)},
    **{(state, Event.LOST): State.CLOSED for state in State},
}


@pytest.mark.parametrize(("state", "event"), list(product(State, Event)))
def test_every_event_in_every_state(state: State, event: Event) -> None:
    if (state, event) in FOLLOWING:
        assert CONNECTION.after(state, event) is FOLLOWING[state, event]
    else:
        with pytest.raises(ImpossibleEvent, match="a secured connection"):
            CONNECTION.after(state, event)


def test_every_state_is_reached_and_left() -> None:
    assert {CONNECTION.after(*pair) for pair in FOLLOWING} == set(State) - {State.ACCEPTED}
    assert {state for (state, _), following in FOLLOWING.items() if following is not state} == set(State) - {
        State.CLOSED
    }


def test_no_end_is_undone() -> None:
    ending = {State.DRAINING, State.LEFT, State.CLOSING, State.CLOSED}
    assert {following for (state, _), following in FOLLOWING.items() if state in ending} <= ending
