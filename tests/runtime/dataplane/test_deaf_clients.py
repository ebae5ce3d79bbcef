"""Clients of this host that ask and never read: they take a bounded part of the supervisor, and others are answered."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import msgpack
import numpy as np
import pytest
import zmq

import slabwire
from slabwire.runtime.clients.control import Control
from slabwire.runtime.control.channel import ASKS, EverythingMine
from slabwire.runtime.control.verbs import VERBS, Hello, Segments
from waiting import wait_until


class Echo(slabwire.Actor):
    def it(self, value: object) -> object:
        return value


@pytest.fixture
def running() -> Iterator[slabwire.Running]:
    graph = slabwire.Graph("deafened")
    graph.expose(graph.add(Echo))
    with TemporaryDirectory(prefix="sw-", dir="/tmp") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLABWIRE_RUN_DIR", f"{folder}/run")
        with graph.run() as running:
            yield running


def private_mib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:")) // 1024


def test_at_the_control_socket(running: slabwire.Running) -> None:
    pid = running.status()["pid"]
    before = private_mib(pid)
    with zmq.Context() as context, context.socket(zmq.DEALER) as deaf:
        deaf.setsockopt(zmq.RCVHWM, 1)
        deaf.setsockopt(zmq.LINGER, 0)
        deaf.connect(f"ipc://{running.directory / 'control'}")
        for token in range(3000):
            deaf.send(msgpack.packb(VERBS.document(Segments(), token=token)))
        for _ in range(3):
            assert running.status()["state"] == "ready"
        assert private_mib(pid) < before + 64
    with Control(running.name) as control:
        assert control.request(Hello())["graph"] == "deafened"


def ask_on(deaf: socket.socket) -> None:
    for token in range(1, 100_000):
        deaf.send(msgpack.packb(ASKS.document(EverythingMine(), token=token)))


def test_at_the_door_of_descriptors(running: slabwire.Running) -> None:
    pid = running.status()["pid"]
    descriptors = Path(f"/proc/{pid}/fd")
    before = len(list(descriptors.iterdir()))
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as deaf:
        deaf.connect(str(running.directory / "local"))
        deaf.settimeout(30)
        with pytest.raises(ConnectionError):
            ask_on(deaf)
        with slabwire.connect("deafened") as client:
            assert client.call("echo.it", 1) == 1
    wait_until(lambda: len(list(descriptors.iterdir())) <= before)
    assert running.status()["clients"] == 0


def test_an_idle_client_is_told_nothing_and_stays(running: slabwire.Running) -> None:
    """Its arrays stay what they are, whatever others do meanwhile."""
    with slabwire.connect("deafened") as idle:
        kept = idle.call("echo.it", np.arange(100_000))
        for each in range(60):
            with slabwire.connect("deafened") as other:
                assert other.call("echo.it", np.full(50_000, each))[7] == each
        assert np.array_equal(kept, np.arange(100_000))
        assert idle.call("echo.it", 1) == 1
        assert np.array_equal(kept, np.arange(100_000))


def test_a_token_that_need_not_be_said_back(running: slabwire.Running) -> None:
    token = [[[1]]]
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as liar:
        liar.connect(str(running.directory / "local"))
        liar.settimeout(30)
        liar.send(msgpack.packb(ASKS.document(EverythingMine(), token=token)))
        assert liar.recv(4096) == b""  # parted with
    with zmq.Context() as context, context.socket(zmq.DEALER) as liar:
        liar.connect(f"ipc://{running.directory / 'control'}")
        liar.send(msgpack.packb(VERBS.document(Hello(), token=token)))
        assert liar.poll(20_000)
        assert "number or a text" in msgpack.unpackb(liar.recv())["error"]
    assert running.client.call("echo.it", 1) == 1
