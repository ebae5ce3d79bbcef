"""A crowd at the gateway: clients that come and go, vanish in every phase, and never read. Prints what it takes of it.

    PYTHONPATH=tests/helpers python tests/chaos/test_gateway_crowd.py [clients]        (10,000 without)

Memory in MiB: what the gateway shares with nobody; what of its slabs in shared memory it has touched is told beside it.
"""

from __future__ import annotations

import itertools
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgpack
import numpy as np
import pytest
import zmq

import slabwire
from slabwire.runtime.clients.control import Control
from slabwire.runtime.control.verbs import OpenGateway, Status
from waiting import wait_until
from zmtp import GREETING, Bare, framed

MIB = 1 << 20


class Crowded(slabwire.Actor):
    def it(self, value: object) -> object:
        return value

    def zeros(self, mib: int) -> np.ndarray:
        zeros = self.loan((mib * MIB,), np.uint8)
        zeros[:] = 0
        return zeros

    def upto(self, n: int) -> Iterator[int]:
        yield from range(n)


class Gateway:
    """What is seen of it from outside."""

    def __init__(self, graph: str) -> None:
        self._graph = graph
        with Control(graph) as control:
            self.address = str(control.request(OpenGateway())["listen"][0])

    @property
    def status(self) -> dict[str, Any]:
        with Control(self._graph, timeout_s=60.0) as control:
            found: dict[str, Any] = control.request(Status())["gateway"]
        return found

    def mib(self) -> tuple[int, int]:
        lines = Path(f"/proc/{self.status['pid']}/status").read_text().splitlines()
        kib = {line.split()[0]: int(line.split()[1]) for line in lines if line.startswith("Rss")}
        return kib["RssAnon:"] // 1024, kib["RssShmem:"] // 1024

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.status['pid']}/fd"))


class Honest:
    """A client that calls on and on, in a thread: what it gets is right, and `took_s` says how long it waited."""

    def __init__(self, address: str) -> None:
        self.took_s: list[float] = []
        self.failed: list[str] = []
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(address,))
        self._thread.start()

    def _run(self, address: str) -> None:
        with slabwire.connect(address) as client:
            for number in itertools.count():
                if self._ends.wait(0.01):
                    return
                began = time.monotonic()
                try:
                    assert client.call("crowded.it", number, timeout_s=60.0) == number
                except (slabwire.SlabwireError, AssertionError) as error:
                    self.failed.append(repr(error))
                self.took_s.append(time.monotonic() - began)

    def end(self) -> None:
        self._ends.set()
        self._thread.join()


def come_and_go(address: str, number: int) -> None:
    for each in range(number):
        with slabwire.connect(address) as client:
            assert client.call("crowded.it", each, timeout_s=60.0) == each


def _call(bare: Bare, port: str, **head: Any) -> None:
    bare.shake_hands()
    bare.send(kind="hello")
    fields = {"n": 1000} if port == "crowded.upto" else {"value": bytes(1000)}
    bare.send(fields, kind="call", id=1, port=port, **head)


def _half_a_call(bare: Bare) -> None:
    bare.shake_hands()
    bare.socket.sendall(framed(msgpack.packb({"version": 1, "kind": "hello"}), more=True) + b"\x02\0\0")


PHASES: dict[str, Callable[[Bare], object]] = {
    "connected": lambda bare: None,
    "half a greeting": lambda bare: bare.socket.sendall(GREETING[:20]),
    "greeted": Bare.greet,
    "shaken hands": Bare.shake_hands,
    "half a message": _half_a_call,
    "called": lambda bare: _call(bare, "crowded.it"),
    "in a stream": lambda bare: _call(bare, "crowded.upto", stream=True, credit=8),
    "called with a key": lambda bare: _call(bare, "crowded.it", key=os.urandom(8).hex()),
}


def vanish(address: str, number: int) -> None:
    """In every phase, by turns with a reset and with an end."""
    for phase in PHASES.values():
        for each in range(number):
            bare = Bare(address)
            phase(bare)
            bare.break_off() if each % 2 else bare.socket.close()


def never_read(context: zmq.Context[Any], address: str, number: int, mib: int) -> list[zmq.Socket[Any]]:
    """So many clients, for each of which so much is made."""
    clients = []
    for _ in range(number):
        deaf = context.socket(zmq.DEALER)
        clients.append(deaf)
        deaf.setsockopt(zmq.RCVHWM, 1)
        deaf.setsockopt(zmq.LINGER, 0)
        deaf.connect(address)
        deaf.send_multipart([msgpack.packb({"version": 1, "kind": "hello"}), b"\xc0"])
        for each in range(mib // 4):
            head = {"version": 1, "kind": "call", "id": each + 1, "port": "crowded.zeros", "timeout_s": 120.0}
            deaf.send_multipart([msgpack.packb(head), msgpack.packb({"mib": 4})])
    return clients


def show(what: str, gateway: Gateway, honest: Honest) -> None:
    private, shared = gateway.mib()
    took_ms = sorted(1e3 * each for each in honest.took_s)
    honest.took_s.clear()
    told = f"median {statistics.median(took_ms):.1f} ms, longest {took_ms[-1]:.0f} ms" if took_ms else "none"
    print(
        f"{what:<42} {private:>6} MiB (+{shared} shared) {gateway.descriptors():>5} descriptors "
        f"{gateway.status['turned_out']:>3} turned out   honest client: {len(took_ms)} answers, {told}",
        flush=True,
    )


def crowd(clients: int, vanishing: int = 300, deaf: int = 20, deaf_mib: int = 64) -> None:
    """Raises AssertionError where something is left, or somebody honest was not answered."""
    graph = slabwire.Graph("crowded")
    crowded = graph.add(Crowded)
    graph.expose(crowded.it, crowded.zeros, crowded.upto)
    with TemporaryDirectory(prefix="sw-", dir="/tmp") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLABWIRE_RUN_DIR", f"{folder}/run")
        with graph.run(listen="tcp://127.0.0.1:*"):
            gateway = Gateway("crowded")
            honest = Honest(gateway.address)
            try:
                _crowd(gateway, honest, clients, vanishing, deaf, deaf_mib)
            finally:
                honest.end()
            assert not honest.failed, honest.failed


def _crowd(gateway: Gateway, honest: Honest, clients: int, vanishing: int, deaf: int, deaf_mib: int) -> None:
    pid = gateway.status["pid"]
    come_and_go(gateway.address, 50)
    with slabwire.connect(gateway.address) as client:  # what it needs for large answers and for streams stays
        assert client.call("crowded.zeros", 1).nbytes == MIB
        assert list(client.stream("crowded.upto", 3)) == [0, 1, 2]
    show("before", gateway, honest)
    before, descriptors = gateway.mib()[0], gateway.descriptors()
    come_and_go(gateway.address, clients)
    show(f"{clients} clients have come and gone", gateway, honest)
    vanish(gateway.address, vanishing)
    show(f"{len(PHASES)} times {vanishing} have vanished", gateway, honest)
    context: zmq.Context[Any] = zmq.Context()
    clients_that_stay = never_read(context, gateway.address, deaf, deaf_mib)
    wait_until(lambda: gateway.status["turned_out"])
    show(f"{len(clients_that_stay)} do not read", gateway, honest)
    context.destroy(linger=0)
    wait_until(lambda: gateway.descriptors() <= descriptors + 2)
    wait_until(lambda: gateway.mib()[0] < before + 100)
    come_and_go(gateway.address, 50)
    show("after", gateway, honest)
    assert (gateway.status["pid"], gateway.status["state"]) == (pid, "ready")


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_crowd_leaves_nothing_behind() -> None:
    ended = subprocess.run([sys.executable, __file__, "10000"], check=False, capture_output=True, text=True)
    print(ended.stdout)
    assert ended.returncode == 0, ended.stderr


if __name__ == "__main__":
    crowd(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
