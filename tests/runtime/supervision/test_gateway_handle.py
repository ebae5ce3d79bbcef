"""A gateway that hangs: noticed by its silence, replaced, and not waited for."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from slabwire.runtime.dataplane.switchboard import Switchboard
from slabwire.runtime.errors import StartError
from slabwire.runtime.graph.compiled import Routing
from slabwire.runtime.host.heartbeat import Heartbeat
from slabwire.runtime.host.run_directory import RunDirectory
from slabwire.runtime.host.topology import Topology
from slabwire.runtime.placement.plan import plan
from slabwire.runtime.remote import gateway_watch as watch
from slabwire.runtime.remote.gateway_watch import reachable
from slabwire.runtime.spec import INTENSITY, ActorSpec, CodeSpec, GraphSpec
from slabwire.runtime.supervision import restart, status, workforce
from slabwire.runtime.supervision.gateway_handle import SILENT_AFTER_S, STOP_WITHIN_S, GatewayHandle
from slabwire.runtime.supervision.workforce import Workforce

# Say where they listen and cannot be asked to end. One never comes to its socket, though the kernel accepts for it; one
# answers at the first of two addresses, and only there.
HANGING = {
    "silent": """
with socket.socket(fileno=int(sys.argv[1])) as owner:
    write_frame(owner, FIRST_WORDS.document(Listening([])))
    while True:
        pass
""",
    "mute": """
door = zmq.Context().socket(zmq.ROUTER)
door.bind(sys.argv[2])
with socket.socket(fileno=int(sys.argv[1])) as owner:
    write_frame(owner, FIRST_WORDS.document(Listening([])))
    while True:
        time.sleep(1)
""",
    "mute at one door": """
context = zmq.Context()
door, other = context.socket(zmq.ROUTER), context.socket(zmq.ROUTER)
door.bind(sys.argv[2])
other.bind("tcp://127.0.0.1:*")
with socket.socket(fileno=int(sys.argv[1])) as owner:
    write_frame(owner, FIRST_WORDS.document(Listening([sys.argv[2], other.get_string(zmq.LAST_ENDPOINT)])))
    while True:
        name, *_ = door.recv_multipart()
        door.send_multipart([name, pack_head(Head(FrameKind.PONG)), b"\\xc0"])
""",
}
PREAMBLE = """
import signal, socket, sys, time, zmq
from slabwire.runtime.control.gateway import FIRST_WORDS, Listening
from slabwire.runtime.host.frames import write_frame
from slabwire.runtime.remote.protocol import FrameKind, Head, pack_head
signal.signal(signal.SIGTERM, signal.SIG_IGN)
"""


class Silent(GatewayHandle):
    kind = "silent"

    def _command(self, far: socket.socket) -> list[str]:
        return [sys.executable, "-c", PREAMBLE + HANGING[self.kind], str(far.fileno()), self.address]


class Stage:
    """The children of a graph whose only worker is never started; the gateway is another program."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path, hang_after_s: float) -> None:
        monkeypatch.setenv("SLABWIRE_RUN_DIR", str(folder))
        monkeypatch.setattr(workforce, "GatewayHandle", Silent)
        spec = GraphSpec("graph", (ActorSpec("one", CodeSpec("module", "x", "X"), ()),))
        self.board = Switchboard(Routing(spec), plan(spec, Topology.read()))
        self.directory = RunDirectory("graph")
        nobody: Any = None
        self.workforce = Workforce(
            spec, self.board, nobody, self.directory, nobody, ["tcp://127.0.0.1:*"], lambda: "ready", self.fail
        )
        self.gateway = self.workforce.gateway
        self.gateway.life.hang_after_s = hang_after_s

    def fail(self, reason: str, detail: str) -> None:
        raise AssertionError(f"the graph gives up: {reason}, {detail}")

    def close(self) -> None:
        self.board.close()
        self.directory.remove()


def told(gateway: GatewayHandle) -> dict[str, Any]:
    found = gateway.status()
    assert found is not None
    return found


@pytest.fixture
def folder() -> Iterator[Path]:
    with TemporaryDirectory(prefix="sw-", dir="/tmp") as made:  # the path of a socket is short
        yield Path(made)


@pytest.mark.parametrize("kind", HANGING)
def test_a_gateway_that_does_not_answer_is_replaced(kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Silent, "kind", kind)
    monkeypatch.setattr(watch, "LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(workforce, "LOOK_EVERY_S", 0.05)
    stage = Stage(monkeypatch, folder, 0.3)

    async def scenario() -> None:
        gateway = stage.gateway
        watching = asyncio.create_task(stage.workforce.watch())
        assert told(gateway)["state"] == "starting"
        await gateway.open()
        first = told(gateway)
        assert (first["state"], first["restarts"], first["last_exit"]) == ("ready", 0, None)
        while told(gateway)["state"] in ("ready", "silent"):
            await asyncio.sleep(0.01)
        again = told(gateway)
        assert (again["state"], again["last_exit"]) == ("restarting", "hung and was killed")
        (reason,) = status._reason_of_gateway({**again, "listen": ["tcp://127.0.0.1:1"]})
        assert reason == {"actor": "the gateway", "reason": "restarting (last: hung and was killed)"}
        while gateway.pid in (0, first["pid"]):
            await asyncio.sleep(0.01)
        assert told(gateway)["restarts"] == 1
        await gateway.close(within_s=0.0)
        assert gateway.status() is None
        watching.cancel()

    asyncio.run(scenario())
    stage.close()


def test_a_gateway_that_fails_too_often_is_tried_slowly_and_for_ever(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(monkeypatch, folder, 1000.0)
    monkeypatch.setattr(workforce, "LONGEST_DELAY_S", 0.02)
    monkeypatch.setattr(restart, "FIRST_DELAY_S", 0.0)

    async def scenario() -> None:
        gateway = stage.gateway
        await gateway.open()
        for restarts in range(1, INTENSITY + 3):
            os.kill(gateway.pid, signal.SIGKILL)
            while told(gateway)["state"] != "ready" or gateway.restarts < restarts:
                await asyncio.sleep(0.01)
        await gateway.close(within_s=0.0)

    asyncio.run(scenario())
    stage.close()


def test_a_gateway_that_cannot_be_started_again_is_tried_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, folder, 1000.0)
    monkeypatch.setattr(workforce, "LONGEST_DELAY_S", 0.02)

    async def scenario() -> None:
        gateway = stage.gateway
        with monkeypatch.context() as broken:
            broken.setitem(HANGING, "silent", "sys.exit(1)")
            with pytest.raises(StartError, match=r"the gateway did not start; see .*gateway\.log"):
                await gateway.open()
            assert gateway.status() is not None
            assert stage.workforce.tree.next_due_s() is None  # whoever opened it was told, and decides
        await gateway.open()
        with monkeypatch.context() as broken:
            broken.setitem(HANGING, "silent", "sys.exit(1)")
            os.kill(gateway.pid, signal.SIGKILL)
            while gateway.restarts < 3:
                await asyncio.sleep(0.01)
            assert told(gateway)["state"] == "restarting"
        while told(gateway)["state"] != "ready":
            await asyncio.sleep(0.01)
        await gateway.close(within_s=0.0)

    asyncio.run(scenario())
    stage.close()


def test_a_silent_gateway_is_not_waited_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, folder, 1000.0)

    async def scenario() -> None:
        gateway = stage.gateway
        await gateway.open()
        assert gateway._watch is not None
        next(iter(gateway._watch._pulses.values())).silent_s = STOP_WITHIN_S + 1.0
        await gateway.close(within_s=1000.0)
        assert gateway.last_end is not None
        assert gateway.last_end.status == -signal.SIGKILL

    asyncio.run(scenario())
    stage.close()


def test_silence_counts_while_somebody_listens() -> None:
    pulse = Heartbeat(100.0, longest_s=2.0)
    assert pulse.look(101.0, heard=False) == 1.0
    assert pulse.look(102.5, heard=False) == 2.5
    assert pulse.look(5000.0, heard=False) == 4.5  # the parent was held up
    assert pulse.look(5001.0, heard=True) == 0.0
    assert pulse.look(5000.0, heard=False) == 0.0


def test_what_is_silent_for_a_while_is_not_ready(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, folder, 1000.0)

    async def scenario() -> None:
        gateway = stage.gateway
        await gateway.open()
        assert told(gateway)["state"] == "ready"
        assert gateway._watch is not None
        next(iter(gateway._watch._pulses.values())).silent_s = SILENT_AFTER_S + 2.0
        shown = told(gateway)
        assert shown["state"] == "silent"
        (reason,) = status._reason_of_gateway({**shown, "listen": ["tcp://127.0.0.1:1"]})
        assert reason == {"actor": "the gateway", "reason": "silent for 7 s"}
        await gateway.close(within_s=0.0)

    asyncio.run(scenario())
    stage.close()


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
