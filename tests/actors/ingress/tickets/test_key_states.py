"""The life of a ticket key, over every state and every event."""

from __future__ import annotations

from itertools import product

import pytest

from slabwire.actors.ingress.tickets.states import KEY, OPENING, Event, State
from slabwire.runtime.state_table import ImpossibleEvent

FOLLOWING = {
    (State.GONE, Event.MADE): State.PENDING,
    (State.PENDING, Event.ACTIVATED): State.ACTIVE,
    (State.ACTIVE, Event.REPLACED): State.DEPRECATED,
    (State.DEPRECATED, Event.EXPIRED): State.GONE,
    (State.REVOKED, Event.EXPIRED): State.GONE,
    **{(state, Event.REVOKED): State.REVOKED for state in OPENING},
}


@pytest.mark.parametrize(("state", "event"), list(product(State, Event)))
def test_every_event_in_every_state(state: State, event: Event) -> None:
    if (state, event) in FOLLOWING:
        assert KEY.after(state, event) is FOLLOWING[state, event]
    else:
        with pytest.raises(ImpossibleEvent, match="a ticket key"):
            KEY.after(state, event)


def test_every_state_is_reached_and_left() -> None:
    assert set(FOLLOWING.values()) == set(State)
    assert {state for state, _ in FOLLOWING} == set(State)


def test_a_key_that_opens_nothing_more_never_does_again() -> None:
    assert {KEY.after(State.REVOKED, Event.EXPIRED)} == {State.GONE}
    assert {following for (state, _), following in FOLLOWING.items() if state is State.GONE} == {State.PENDING}
