"""The thread that pyzmq keeps, started before a file's first test."""

from __future__ import annotations

import pytest
import zmq
import zmq.auth


@pytest.fixture(scope="module", autouse=True)
def zero_copy_thread() -> None:
    """At the first message that it does not copy pyzmq starts a thread of its own, and keeps it."""
    with zmq.Context() as context, context.socket(zmq.PAIR) as near, context.socket(zmq.PAIR) as far:
        near.bind("inproc://warm")
        far.connect("inproc://warm")
        near.send(bytes(1 << 20), copy=False)
        far.recv()
