"""A gateway that hangs: noticed by its silence, replaced, and not waited for."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from slabwire.runtime import status
from slabwire.runtime.doorkeeper import STOP_WITHIN_S, Doorkeeper
from slabwire.runtime.pulse import Pulse

# Says where it listens and nothing more, and cannot be asked to end.
SILENT = """
import signal, socket, sys
from slabwire.runtime.frames import write_frame
signal.signal(signal.SIGTERM, signal.SIG_IGN)
with socket.socket(fileno=int(sys.argv[1])) as owner:
    write_frame(owner, {"addresses": []})
    while True:
        pass
"""


class Silent(Doorkeeper):
    def _command(self, far: socket.socket) -> list[str]:
        return [sys.executable, "-c", SILENT, str(far.fileno())]


def doorkeeper_in(folder: Path, hang_after_s: float) -> Doorkeeper:
    directory: Any = SimpleNamespace(path=folder, log=lambda name: folder / f"{name}.log")
    return Silent("graph", directory, ["tcp://127.0.0.1:*"], hang_after_s)


def told(doorkeeper: Doorkeeper) -> dict[str, Any]:
    found = doorkeeper.status()
    assert found is not None
    return found


def test_a_silent_gateway_is_replaced(tmp_path: Path) -> None:
    async def scenario() -> None:
        doorkeeper = doorkeeper_in(tmp_path, 0.1)
        assert told(doorkeeper)["state"] == "starting"
        await doorkeeper.open()
        first = told(doorkeeper)
        assert (first["state"], first["restarts"], first["last_exit"]) == ("ready", 0, None)
        while told(doorkeeper)["state"] == "ready":
            await asyncio.sleep(0.01)
        again = told(doorkeeper)
        assert (again["state"], again["last_exit"]) == ("restarting", "hung and was killed")
        (reason,) = status._reason_of_gateway({**again, "listen": ["tcp://127.0.0.1:1"]})
        assert reason == {"actor": "the gateway", "reason": "restarting (last: hung and was killed)"}
        while doorkeeper.pid in (0, first["pid"]):
            await asyncio.sleep(0.01)
        await doorkeeper.close(within_s=0.0)
        assert doorkeeper.status() is None

    asyncio.run(scenario())


def test_a_silent_gateway_is_not_waited_for(tmp_path: Path) -> None:
    async def scenario() -> None:
        doorkeeper = doorkeeper_in(tmp_path, 1000.0)
        await doorkeeper.open()
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
