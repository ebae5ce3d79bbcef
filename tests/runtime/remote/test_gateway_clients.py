"""What one remote client can do to all: go by the thousand, never read, ask for too much, send what is nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import struct
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgpack
import numpy as np
import pytest
import zmq

import slabwire
from slabwire.runtime.clients.control import Control
from slabwire.runtime.control.verbs import OpenGateway
from waiting import wait_until
from zmtp import GREETING, Bare, framed

MIB = 1 << 20


class Echo(slabwire.Actor):
    def it(self, value: object) -> object:
        return value

    def zeros(self, mib: int) -> np.ndarray:
        zeros = self.loan((mib * MIB,), np.uint8)
        zeros[:] = 0
        return zeros

    def many(self, n: int) -> Iterator[np.ndarray]:
        for each in range(n):
            yield np.full(MIB, each % 256, np.uint8)

    async def wait(self, value: object) -> None:
        await asyncio.Event().wait()


class Served:
    """A running graph, its gateway's addresses, and what is told of it."""

    def __init__(self, running: slabwire.Running) -> None:
        self.running = running
        with Control(running.name) as control:
            found = control.request(OpenGateway())
        self.ipc, self.tcp = str(found["address"]), str(found["listen"][0])

    @property
    def gateway(self) -> dict[str, Any]:
        found: dict[str, Any] = self.running.status()["gateway"]
        return found

    def answers(self) -> None:
        """Whoever comes anew is answered, at both doors, and nobody was replaced."""
        for address in (self.tcp, self.ipc):
            with slabwire.connect(address) as client:
                assert client.call("echo.it", 1, timeout_s=60.0) == 1
        assert (self.gateway["state"], self.gateway["restarts"]) == ("ready", 0)

    def private_mib(self) -> int:
        """Memory of the gateway that it shares with nobody."""
        lines = Path(f"/proc/{self.gateway['pid']}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:")) // 1024

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.gateway['pid']}/fd"))


class Deaf:
    """A client that says hello and reads nothing more."""

    def __init__(self, address: str) -> None:
        self._context = zmq.Context()
        self.socket = self._context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.RCVHWM, 1)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.RCVTIMEO, 60_000)
        self.socket.connect(address)
        self._last = 0
        self.send("hello")
        assert self.receive()[0]["kind"] == "welcome"

    def send(self, kind: str, payload: Any = None, **head: Any) -> None:
        head = {"version": 1, "kind": kind, **head}
        self.socket.send_multipart([msgpack.packb(head), msgpack.packb(payload)])

    def call(self, port: str, **fields: Any) -> None:
        self._last += 1
        self.send("call", fields, id=self._last, port=port)

    def stream(self, port: str, credit: int, **fields: Any) -> None:
        self._last += 1
        self.send("call", fields, id=self._last, port=port, stream=True, credit=credit)

    def receive(self) -> tuple[dict[str, Any], Any, list[bytes]]:
        head, payload, *tensors = self.socket.recv_multipart()
        return msgpack.unpackb(head), msgpack.unpackb(payload), tensors

    def close(self) -> None:
        self._context.destroy(linger=0)


@contextlib.contextmanager
def deaf(address: str) -> Iterator[Deaf]:
    client = Deaf(address)
    try:
        yield client
    finally:
        client.close()


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    graph = slabwire.Graph("crowded")
    echo = graph.add(Echo)
    graph.expose(echo.it, echo.zeros, echo.many, echo.wait)
    with TemporaryDirectory(prefix="sw-", dir="/tmp") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLABWIRE_RUN_DIR", f"{folder}/run")
        with graph.run(listen="tcp://127.0.0.1:*") as running:
            found = Served(running)
            with deaf(found.tcp) as client:  # pyzmq starts a thread with the first message that it does not copy
                client.socket.send_multipart([bytes(MIB), b""], copy=False)
            yield found


def come_and_go(served: Served, bare: int, whole: int) -> None:
    for each in range(bare):
        with Bare(served.tcp) as client:
            client.greet() if each % 2 else client.shake_hands()
    for _ in range(whole):
        with slabwire.connect(served.tcp) as client:
            assert client.call("echo.it", 7) == 7
    served.answers()


def test_clients_that_come_and_go_leave_room_for_others(served: Served) -> None:
    served.answers()
    before = served.descriptors()
    come_and_go(served, 2100, 20)
    wait_until(lambda: served.descriptors() <= before + 2)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_thousands_of_clients_are_served(served: Served) -> None:
    come_and_go(served, 5000, 5000)


def turned_out_by(served: Served, client: Deaf, port: str, fields: dict[str, Any]) -> None:
    before = served.gateway["turned_out"]
    while served.gateway["turned_out"] == before:
        for _ in range(8):
            client.call(port, **fields)
    assert served.gateway["turned_out"] == before + 1


@pytest.mark.parametrize(
    ("door", "port", "fields"),
    [
        ("tcp", "echo.zeros", {"mib": 20}),
        ("ipc", "echo.zeros", {"mib": 20}),
        pytest.param("tcp", "echo.it", {"value": bytes(MIB)}, marks=pytest.mark.long),
    ],
)
def test_who_never_reads_is_turned_out(served: Served, door: str, port: str, fields: dict[str, Any]) -> None:
    before = served.private_mib()
    with deaf(getattr(served, door)) as client:
        turned_out_by(served, client, port, fields)
        served.answers()
        with slabwire.connect("crowded") as local:
            assert local.call("echo.zeros", 200).nbytes == 200 * MIB  # the actor has its memory
        wait_until(lambda: served.private_mib() < before + 64)
    log = (served.running.directory / "logs" / "gateway.log").read_text()
    where = "127.0.0.1" if door == "tcp" else f"a local socket (pid {os.getpid()})"
    assert f"the client at {where} is turned out: " in log


def test_a_gateway_writes_its_stacks_when_it_is_told_to(served: Served) -> None:
    os.kill(served.gateway["pid"], signal.SIGUSR1)
    log = served.running.directory / "logs" / "gateway.log"
    wait_until(lambda: "(most recent call first)" in log.read_text())
    served.answers()


def test_a_stream_waits_for_who_reads_late(served: Served) -> None:
    before = served.private_mib()
    with deaf(served.tcp) as client:
        client.stream("echo.many", credit=400, n=400)
        served.answers()
        assert served.private_mib() < before + 150
        came = [client.receive() for _ in range(401)]
    assert [head["kind"] for head, *_ in came] == [*["item"] * 400, "end"]
    assert [tensors[0][0] for _, _, tensors in came[:-1]] == [each % 256 for each in range(400)]


def test_requests_of_one_client_leave_room_for_those_of_others(served: Served) -> None:
    with deaf(served.tcp) as greedy, deaf(served.tcp) as other:
        for each in (greedy, greedy, greedy, other):
            tensor = msgpack.ExtType(1, msgpack.packb([0, "uint8", [100 * MIB]]))
            head = {"version": 1, "kind": "call", "id": each._last + 1, "port": "echo.wait"}
            each._last += 1
            frames = [msgpack.packb(head), msgpack.packb({"value": tensor}), bytes(100 * MIB)]
            each.socket.send_multipart(frames, copy=False)
        head, text, _ = greedy.receive()
        assert (head["kind"], head["id"], head["code"], head["not_begun"]) == ("error", 3, "overloaded", True)
        assert "requests of this client" in text
        other.call("echo.it", value=1)
        assert other.receive()[1] == 1


GARBAGE: dict[str, bytes] = {
    "http": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "tls": bytes.fromhex("16030100c8010000c40303") + bytes(200),
    "another mechanism": GREETING.replace(b"NULL", b"BABL"),
    "a version of old": b"\x01\x00",
    "a huge frame": GREETING + bytes([2]) + struct.pack(">Q", 1 << 62),
    "no command": GREETING + b"\x04\x00",
    "a message before its time": GREETING + framed(b"x", more=False),
    "noise": bytes(range(256)) * 64,
}


@pytest.mark.parametrize("what", GARBAGE)
def test_garbage_is_hung_up_on_and_others_are_answered(served: Served, what: str) -> None:
    connections = [Bare(served.tcp) for _ in range(20)]
    for each in connections:
        with contextlib.suppress(OSError):
            each.socket.sendall(GARBAGE[what])
    served.answers()
    for each in connections:
        each.socket.close()
    served.answers()


def test_a_frame_that_is_too_large_ends_its_connection_alone(served: Served) -> None:
    with Bare(served.tcp) as client:
        client.shake_hands()
        client.socket.sendall(bytes([2]) + struct.pack(">Q", 257 * MIB) + bytes(1000))
        client.socket.settimeout(30)
        with contextlib.suppress(ConnectionError):
            while client.socket.recv(4096):
                pass
    served.answers()


def send_on(client: Bare, frame: bytes) -> None:
    for _ in range(1000):
        client.socket.sendall(frame)


@pytest.mark.parametrize("says_hello", [False, True])
def test_a_message_without_an_end_is_ended(served: Served, says_hello: bool) -> None:
    before, turned_out = served.private_mib(), served.gateway["turned_out"]
    with Bare(served.tcp) as client, slabwire.connect(served.tcp) as other:
        client.shake_hands()
        if says_hello:
            client.send(kind="hello")
        with pytest.raises(ConnectionError):
            send_on(client, framed(bytes(8 * MIB), more=True))
        assert other.call("echo.it", 1) == 1
        wait_until(lambda: served.gateway["turned_out"] == turned_out + 1)
        wait_until(lambda: served.private_mib() < before + 64)
    served.answers()


def test_half_open_connections_hold_up_nobody(served: Served) -> None:
    with contextlib.ExitStack() as stack:
        for each in range(1000):
            client = stack.enter_context(Bare(served.tcp))
            if each % 2:
                client.socket.sendall(GREETING[: each % 64])
        served.answers()
    served.answers()


@pytest.mark.parametrize("phase", ["connected", "greeted", "shaken hands"])
def test_strangers_leave_descriptors_for_clients(served: Served, phase: str) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.ExitStack() as stack, slabwire.connect(served.tcp) as client:
        before = resource.prlimit(served.gateway["pid"], resource.RLIMIT_NOFILE, (400, hard))
        stack.callback(resource.prlimit, served.gateway["pid"], resource.RLIMIT_NOFILE, before)
        for _ in range(4):
            for _ in range(90):
                bare = stack.enter_context(Bare(served.tcp))
                if phase != "connected":
                    bare.greet() if phase == "greeted" else bare.shake_hands()
            assert client.call("echo.it", 1) == 1
            wait_until(lambda: served.descriptors() <= 200)
        served.answers()
        assert client.call("echo.it", 2) == 2


@pytest.mark.long
def test_a_handshake_that_is_not_done_is_ended(served: Served) -> None:
    before = served.descriptors()
    with contextlib.ExitStack() as stack:
        for each in range(5000):
            client = stack.enter_context(Bare(served.tcp))
            client.socket.sendall(GREETING[: each % 64])
        served.answers()
        wait_until(lambda: served.descriptors() <= before + 4)
        served.answers()


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_gateway_that_cannot_be_reached_is_not_ready_and_is_replaced(served: Served) -> None:
    """Its loop turns and it is alive; but nobody comes in by one of its doors."""
    first = served.gateway["pid"]
    os.unlink(served.ipc.removeprefix("ipc://"))
    wait_until(lambda: served.gateway["state"] == "silent")
    (reason,) = served.running.status()["not_ready"]
    assert reason["actor"] == "the gateway"
    assert reason["reason"].startswith("silent for ")
    wait_until(lambda: served.gateway["pid"] not in (0, first) and served.gateway["state"] == "ready")
    with slabwire.connect(served.ipc) as client:
        assert client.call("echo.it", 1) == 1
    log = (served.running.directory / "logs" / "supervisor.log").read_text()
    assert f"the gateway did not answer at {served.ipc} for " in log
