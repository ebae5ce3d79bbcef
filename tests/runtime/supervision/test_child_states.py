"""The life of a child process: all states and all events, without a process and with time as an argument."""

from __future__ import annotations

import itertools
from typing import get_args

import pytest

from slabwire.runtime.state_table import ImpossibleEvent
from slabwire.runtime.supervision.child_states import CHILD, Event, Life, State

STATES: tuple[State, ...] = get_args(State)
EVENTS: tuple[Event, ...] = get_args(Event)
RUNNING: tuple[State, ...] = ("starting", "cancelled", "ready", "retiring", "left", "hung", "killed")
SECOND = 10**9


def life_in(state: State) -> Life:
    return Life(60.0, 30.0, state, since_ns=100 * SECOND, started_ns=90 * SECOND)


@pytest.mark.parametrize(("state", "event"), list(itertools.product(STATES, EVENTS)))
def test_every_event_in_every_state(state: State, event: Event) -> None:
    life = life_in(state)
    expected = CHILD.rows[state].get(event)
    if expected is None:
        with pytest.raises(ImpossibleEvent, match=f"a child that is {state} met the event {event}"):
            life.happened(event, 200 * SECOND)
        assert life == life_in(state)
        return
    life.happened(event, 200 * SECOND)
    assert life.state == expected
    assert life.since_ns == (100 if expected == state else 200) * SECOND


def test_what_the_table_promises() -> None:
    assert set(CHILD.rows) == set(STATES)
    for state, row in CHILD.rows.items():
        is_running = state in RUNNING
        assert ("spawned" in row) == (state == "absent"), "one process at a time"
        assert ("reaped" in row) == is_running, "a process is reaped once"
        assert ("concluded" in row) == (state == "reaped"), "an end is concluded once"
        assert ("was_late" in row) == (is_running and state not in ("hung", "killed")), "nobody is late twice"
        for event in ("became_ready", "told_to_leave", "has_left", "killed"):
            assert event in row, "news that come late, and orders of the parent, are no faults"
        assert row["killed"] == ("killed" if is_running else state)
        if state in ("absent", "reaped", "hung", "killed"):
            assert row["became_ready"] == row["told_to_leave"] == row["has_left"] == state


def test_every_life_can_end() -> None:
    for state in STATES:
        seen, now = set[State](), {state}
        while now - seen:
            seen |= now
            now = {after for each in now for after in CHILD.rows[each].values()}
        assert seen == set(STATES)


def test_a_life_from_its_start_to_its_end() -> None:
    life = Life(60.0, 30.0)
    life.happened("spawned", 1)
    assert (life.state, life.started_ns, life.was_ready) == ("starting", 1, False)
    for at, event in enumerate(("became_ready", "told_to_leave", "reaped", "concluded"), 2):
        life.happened(event, at)  # type: ignore[arg-type]
    assert (life.state, life.since_ns, life.was_ready, life.ended_in) == ("absent", 5, True, "retiring")
    life.happened("became_ready", 6)  # its own word, late
    assert (life.state, life.since_ns) == ("absent", 5)
    life.happened("spawned", 7)
    assert (life.state, life.started_ns, life.was_ready) == ("starting", 7, False)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("sign_s", [0, 40, 120])
def test_for_what_a_process_is_late(state: State, sign_s: int) -> None:
    """It was started at 90 s, and is in its state since 100 s. It has 60 s to start, and 30 s else."""
    start, stop = ("start_timeout", 60.0, 150), ("stop_timeout", 30.0, 130)
    hang = ("hang", 30.0, max(sign_s, 100) + 30) if sign_s else None
    limits = {"starting": start, "cancelled": start, "ready": hang, "retiring": stop, "left": stop}
    limit = limits.get(state)
    for now_s in range(100, 200):
        late = life_in(state).overdue(sign_s * SECOND, now_s * SECOND)
        assert late == (limit[:2] if limit is not None and now_s > limit[2] else None)
