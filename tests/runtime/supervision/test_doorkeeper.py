"""A gateway that hangs: noticed by its silence, replaced, and not waited for."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import pytest

from slabwire.runtime.host.heartbeat import Pulse
from slabwire.runtime.supervision import gateway_watch as watch
from slabwire.runtime.supervision import status
from slabwire.runtime.supervision.gateway_handle import SILENT_AFTER_S, STOP_WITHIN_S, Doorkeeper
from slabwire.runtime.supervision.knock import reachable

# Say where they listen and cannot be asked to end. One never comes to its socket, though the kernel accepts for it; one
# answers at the first of two addresses, and only there.
HANGING = {
    "silent": """
with socket.socket(fileno=int(sys.argv[1])) as owner:
    write_frame(owner, {"addresses": []})
    while True:
        pass
""",
    "mute": """
door = zmq.Context().socket(zmq.ROUTER)
door.bind(sys.argv[2])
with socket.socket(fileno=int(sys.argv[1])) as owner:
    write_frame(owner, {"addresses": []})
    while True:
        time.sleep(1)
""",
    "mute at one door": """
context = zmq.Context()
door, other = context.socket(zmq.ROUTER), context.socket(zmq.ROUTER)
door.bind(sys.argv[2])
other.bind("tcp://127.0.0.1:*")
with socket.socket(fileno=int(sys.argv[1])) as owner:
    write_frame(owner, {"addresses": [sys.argv[2], other.get_string(zmq.LAST_ENDPOINT)]})
    while True:
        name, *_ = door.recv_multipart()
        door.send_multipart([name, pack_head(Head(Kind.PONG)), b"\\xc0"])
""",
}
PREAMBLE = """
import signal, socket, sys, time, zmq
from slabwire.runtime.host.frames import write_frame
from slabwire.runtime.remote.protocol import Head, Kind, pack_head
signal.signal(signal.SIGTERM, signal.SIG_IGN)
"""


class Silent(Doorkeeper):
    kind = "silent"

    def _command(self, far: socket.socket) -> list[str]:
        return [sys.executable, "-c", PREAMBLE + HANGING[self.kind], str(far.fileno()), self.address]


def doorkeeper_in(folder: Path, hang_after_s: float) -> Doorkeeper:
    directory: Any = SimpleNamespace(path=folder, log=lambda name: folder / f"{name}.log")
    return Silent("graph", directory, ["tcp://127.0.0.1:*"], hang_after_s)


def told(doorkeeper: Doorkeeper) -> dict[str, Any]:
    found = doorkeeper.status()
    assert found is not None
    return found


@pytest.mark.parametrize("kind", HANGING)
def test_a_gateway_that_does_not_answer_is_replaced(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Silent, "kind", kind)
    monkeypatch.setattr(watch, "LOOK_EVERY_S", 0.05)

    async def scenario(folder: Path) -> None:
        doorkeeper = doorkeeper_in(folder, 0.3)
        assert told(doorkeeper)["state"] == "starting"
        await doorkeeper.open()
        first = told(doorkeeper)
        assert (first["state"], first["restarts"], first["last_exit"]) == ("ready", 0, None)
        while told(doorkeeper)["state"] in ("ready", "silent"):
            await asyncio.sleep(0.01)
        again = told(doorkeeper)
        assert (again["state"], again["last_exit"]) == ("restarting", "hung and was killed")
        (reason,) = status._reason_of_gateway({**again, "listen": ["tcp://127.0.0.1:1"]})
        assert reason == {"actor": "the gateway", "reason": "restarting (last: hung and was killed)"}
        while doorkeeper.pid in (0, first["pid"]):
            await asyncio.sleep(0.01)
        await doorkeeper.close(within_s=0.0)
        assert doorkeeper.status() is None

    with TemporaryDirectory(prefix="sw-", dir="/tmp") as folder:  # the path of a socket is short
        asyncio.run(scenario(Path(folder)))


def test_a_silent_gateway_is_not_waited_for(tmp_path: Path) -> None:
    async def scenario() -> None:
        doorkeeper = doorkeeper_in(tmp_path, 1000.0)
        await doorkeeper.open()
        assert doorkeeper._watch is not None
        next(iter(doorkeeper._watch._pulses.values())).silent_s = STOP_WITHIN_S + 1.0
        await doorkeeper.close(within_s=1000.0)
        assert doorkeeper.last_end is not None
        assert doorkeeper.last_end.status == -signal.SIGKILL

    asyncio.run(scenario())


def test_silence_counts_while_somebody_listens() -> None:
    pulse = Pulse(100.0, longest_s=2.0)
    assert pulse.look(101.0, heard=False) == 1.0
    assert pulse.look(102.5, heard=False) == 2.5
    assert pulse.look(5000.0, heard=False) == 4.5  # the parent was held up
    assert pulse.look(5001.0, heard=True) == 0.0
    assert pulse.look(5000.0, heard=False) == 0.0


def test_what_is_silent_for_a_while_is_not_ready(tmp_path: Path) -> None:
    async def scenario() -> None:
        doorkeeper = doorkeeper_in(tmp_path, 1000.0)
        await doorkeeper.open()
        assert told(doorkeeper)["state"] == "ready"
        assert doorkeeper._watch is not None
        next(iter(doorkeeper._watch._pulses.values())).silent_s = SILENT_AFTER_S + 2.0
        gateway = told(doorkeeper)
        assert gateway["state"] == "silent"
        (reason,) = status._reason_of_gateway({**gateway, "listen": ["tcp://127.0.0.1:1"]})
        assert reason == {"actor": "the gateway", "reason": "silent for 7 s"}
        await doorkeeper.close(within_s=0.0)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("listens", "connects"),
    [
        ("tcp://0.0.0.0:5555", "tcp://127.0.0.1:5555"),
        ("tcp://[::]:5555", "tcp://[::1]:5555"),
        ("tcp://10.0.0.3:5555", "tcp://10.0.0.3:5555"),
        ("ipc:///run/x/gateway", "ipc:///run/x/gateway"),
    ],
)
def test_what_listens_everywhere_is_asked_here(listens: str, connects: str) -> None:
    assert reachable(listens) == connects
