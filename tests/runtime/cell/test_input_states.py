"""The life of an input: all states, all events."""

from __future__ import annotations

import pytest

from slabwire.runtime.cell.input_states import INPUT, Event, State
from slabwire.runtime.cell.work import Work
from slabwire.runtime.message.header import Header, Kind
from slabwire.runtime.state_table import ImpossibleEvent

S, E = State, Event
# Written out once more: by state, what becomes of an input at BEGIN, HOLD, STOP, FINISH and HAND_ON; None is illegal.
CASES = {
    S.TAKEN: (S.RUNNING, S.SENDING, S.STOPPING, S.FINISHED, S.HANDED_ON),
    S.RUNNING: (None, S.SENDING, S.STOPPING, S.FINISHED, S.HANDED_ON),
    S.STOPPING: (None, None, S.STOPPING, S.FINISHED, S.HANDED_ON),
    S.SENDING: (None, None, S.STOPPING, S.FINISHED, S.HANDED_ON),
    S.FINISHED: (None, S.FINISHED, S.FINISHED, S.FINISHED, S.FINISHED),
    S.HANDED_ON: (S.HANDED_ON, S.HANDED_ON, S.HANDED_ON, S.HANDED_ON, S.HANDED_ON),
}


@pytest.mark.parametrize("event", Event)
@pytest.mark.parametrize("state", State)
def test_every_event_in_every_state(state: State, event: Event) -> None:
    expected = CASES[state][list(Event).index(event)]
    if expected is None:
        with pytest.raises(ImpossibleEvent, match=f"an input that is {state} met the event {event}"):
            INPUT.after(state, event)
    else:
        assert INPUT.after(state, event) is expected


def test_an_input_that_is_over_stays_so() -> None:
    for over in (S.FINISHED, S.HANDED_ON):
        assert set(INPUT.rows[over].values()) == {over}


def test_each_state_is_reached_and_each_but_the_last_two_can_be_left() -> None:
    assert {each for row in INPUT.rows.values() for each in row.values()} == set(State) - {S.TAKEN}
    for state in set(State) - {S.FINISHED, S.HANDED_ON}:
        assert {S.FINISHED, S.HANDED_ON} <= set(INPUT.rows[state].values())


def test_an_illegal_event_changes_nothing() -> None:
    work = Work(Header(Kind.DATA), lane=1, sequence=0, attempt=1)
    assert work.advance(E.BEGIN)
    with pytest.raises(ImpossibleEvent):
        work.advance(E.BEGIN)
    assert work.state is S.RUNNING
    assert [work.advance(each) for each in (E.STOP, E.STOP, E.FINISH, E.FINISH, E.HAND_ON)] == [1, 0, 1, 0, 0]
