"""A remote client's half of the protocol, without a socket."""

from __future__ import annotations

import pytest

import slabwire
from slabwire.runtime.errors import ClientClosed
from slabwire.runtime.remote.client_protocol import Packed, Session
from slabwire.runtime.remote.frame_codec import pack_value
from slabwire.runtime.remote.protocol import Frame, FrameKind, Head, pack_head, unpack_head
from slabwire.runtime.remote.session_states import SESSION, Event, State
from slabwire.runtime.state_table import ImpossibleEvent

WELCOME = [pack_head(Head(FrameKind.WELCOME)), *pack_value({"graph": "g", "ports": {}})]


def test_a_call_on_a_connection_that_was_just_lost_is_refused_and_not_forgotten() -> None:
    session = Session("tcp://127.0.0.1:1")
    session.connected()
    session.receive(WELCOME)
    assert session.is_ready
    session.lost()  # heard by one thread, while another is about to call
    with pytest.raises(slabwire.Disconnected, match="before the call left") as caught:
        session.begin(Packed("a.b", pack_value({}), False, None), None, lambda: None)
    assert caught.value.not_begun
    session.connected()
    assert len(session.outbox) == 1  # the hello


# -- the life of a session -------------------------------------------------------------------------------------------

# Of each state: the one that follows each event, in the order of `Event`; - where that cannot happen.
FOLLOWING = {
    "unconnected": "greeted unconnected ready refused greeted - closed",
    "greeted": "greeted unconnected ready refused greeted - closed",
    "ready": "greeted unconnected ready refused greeted - closed",
    "refused": "greeted refused ready refused greeted greeted closed",
    "closed": "closed closed closed closed closed - closed",
}


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", Event)
def test_each_event_in_each_state(state: State, event: Event) -> None:
    expected = FOLLOWING[state.value].split()[list(Event).index(event)]
    if expected == "-":
        with pytest.raises(ImpossibleEvent, match=f"a session that is {state} met the event {event}"):
            SESSION.after(state, event)
    else:
        assert SESSION.after(state, event) is State(expected)


def message(kind: FrameKind, value: object = None, code: str = "") -> list[Frame]:
    return [pack_head(Head(kind, code=code)), *pack_value(value)]


def happen(session: Session, event: Event) -> None:
    match event:
        case Event.CONNECTED | Event.ASKED_AGAIN:
            session.connected(event)
        case Event.LOST:
            session.lost()
        case Event.WELCOMED:
            session.receive(WELCOME)
        case Event.TURNED_AWAY:
            session.receive(message(FrameKind.ERROR, "full", "overloaded"))
        case Event.FORGOTTEN:
            session.receive(message(FrameKind.ERROR, "who are you", "disconnected"))
        case Event.CLOSED:
            session.close()


WAYS = {
    State.UNCONNECTED: [],
    State.GREETED: [Event.CONNECTED],
    State.READY: [Event.CONNECTED, Event.WELCOMED],
    State.REFUSED: [Event.CONNECTED, Event.TURNED_AWAY],
    State.CLOSED: [Event.CONNECTED, Event.CLOSED],
}


@pytest.mark.parametrize(("state", "event"), [(state, event) for state, row in SESSION.rows.items() for event in row])
def test_what_a_session_does_at_each_event(state: State, event: Event) -> None:
    """Calls end unless it stays ready, a hello is said where one is due, and whoever waits for the answer is told."""
    session = Session("tcp://127.0.0.1:1")
    for each in WAYS[state]:
        happen(session, each)
    pending = session.begin(Packed("a.b", pack_value({}), False, None), None, None) if session.is_ready else None
    session.outbox.clear()
    happen(session, event)
    after = SESSION.after(state, event)
    assert session.state is after
    assert [unpack_head(each).kind for each in session.outbox] == [FrameKind.HELLO] * (after is State.GREETED)
    assert bool(session.verdict.arrived) == (after in (State.READY, State.REFUSED, State.CLOSED))
    # A transport that is there again was lost before, and that has ended the call.
    assert pending is None or bool(pending.arrived) == (event not in (Event.WELCOMED, Event.CONNECTED))
    if after is State.CLOSED and pending is not None:
        with pytest.raises(ClientClosed, match="was closed"):
            pending.result()


def test_a_refusal_is_heard_by_one_who_waits_and_asked_for_anew() -> None:
    session = Session("tcp://127.0.0.1:1")
    for each in WAYS[State.READY]:
        happen(session, each)
    pending = session.begin(Packed("a.b", pack_value({}), False, None), None, None)
    happen(session, Event.TURNED_AWAY)
    refusal = session.take_refusal()
    assert isinstance(refusal, slabwire.Overloaded)
    assert refusal.not_begun
    assert session.take_refusal() is None
    assert session.state is State.GREETED
    with pytest.raises(slabwire.Overloaded) as caught:
        pending.result()
    assert not caught.value.not_begun  # it may have been at work
