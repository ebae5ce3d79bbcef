"""The channel that descriptors travel by, where there are none left."""

from __future__ import annotations

import errno
import os
import socket

import pytest

from slabwire.runtime.dataplane.descriptor_channel import Channel, Link, Unheard, close_all
from slabwire.runtime.errors import Disconnected, ProtocolError


def refuse_from(nth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the nth duplicate on there is no descriptor."""
    real, made = os.dup, 0

    def dup(descriptor: int) -> int:
        nonlocal made
        made += 1
        if made >= nth:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return real(descriptor)

    monkeypatch.setattr(os, "dup", dup)


def channel_pair() -> tuple[Channel, Channel]:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return Channel(near), Channel(far)


def test_what_the_kernel_takes_at_once_needs_no_duplicates(monkeypatch: pytest.MonkeyPatch) -> None:
    near, far = channel_pair()
    refuse_from(1, monkeypatch)
    near.send({"offer": 1}, [0, 1])
    message, descriptors = far.receive() or ({}, [])
    assert (message, len(descriptors)) == ({"offer": 1}, 2)
    close_all(descriptors)
    near.close()
    far.close()


def test_duplicates_that_do_not_suffice_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    near, far = channel_pair()
    while not near.has_unsent:
        near.send({"filler": b" " * 1000})
    before = len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as scarce:
        refuse_from(3, scarce)
        with pytest.raises(OSError, match="Too many open files"):
            near.send({"offer": 2}, [0, 1, 2])
    assert len(os.listdir("/proc/self/fd")) == before
    near.close()
    far.close()


def fill(channel: Channel) -> None:
    for _ in range(100_000):
        channel.send({"offer": b" " * 1000}, [0])


def drain(channel: Channel) -> None:
    while (received := channel.receive()) is not None:
        close_all(received[1])


def test_a_peer_that_asks_and_does_not_read_is_parted_with() -> None:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    channel, peer = Channel(near, most_unsent=5), Channel(far)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(Disconnected, match="asks and does not read: 5 answers wait for it"):
        fill(channel)
    assert not channel.has_unsent
    assert len(os.listdir("/proc/self/fd")) == before
    for each in (channel, peer):
        with pytest.raises(Disconnected):
            drain(each)
        each.close()


def test_descriptors_of_an_offer_that_is_none_are_closed() -> None:
    near, far = channel_pair()
    link = Link(near, Unheard())
    before = len(os.listdir("/proc/self/fd"))
    for offers in ([{"offer": "bell", "endpoint": "one"}], [{"offer": "bell", "endpoint": 1}, {"offer": "nonsense"}]):
        far.send({"offers": offers}, [0, 1])
        with pytest.raises(ProtocolError):
            link.pump()
    assert len(os.listdir("/proc/self/fd")) == before
    near.close()
    far.close()
