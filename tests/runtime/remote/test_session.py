"""A remote client's half of the protocol, without a socket."""

from __future__ import annotations

import pytest

import slabwire
from slabwire.runtime.remote.client_protocol import Session
from slabwire.runtime.remote.frame_codec import pack_value
from slabwire.runtime.remote.protocol import Head, Kind, pack_head

WELCOME = [pack_head(Head(Kind.WELCOME)), *pack_value({"graph": "g", "ports": {}})]


def test_a_call_on_a_connection_that_was_just_lost_is_refused_and_not_forgotten() -> None:
    session = Session("tcp://127.0.0.1:1")
    session.connected()
    session.receive(WELCOME)
    assert session.is_ready
    session.lost()  # heard by one thread, while another is about to call
    with pytest.raises(slabwire.Disconnected, match="before the call left") as caught:
        session.begin("a.b", pack_value({}), None, lambda: None, stream=False)
    assert caught.value.not_begun
    session.connected()
    assert len(session.outbox) == 1  # the hello
