"""One worker as its parent sees it, with other programs in the place of workers."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from slabwire.runtime.dataplane.switchboard import Switchboard
from slabwire.runtime.graph.compiled import Routing
from slabwire.runtime.host.run_directory import RunDirectory
from slabwire.runtime.host.topology import Topology
from slabwire.runtime.placement.plan import plan
from slabwire.runtime.postmortem.exit_reason import ExitReason
from slabwire.runtime.spec import ActorSpec, CodeSpec, GraphSpec
from slabwire.runtime.supervision import child
from slabwire.runtime.supervision.worker_handle import WorkerHandle


class Programs:
    """In the place of a spawner: each process is another program."""

    def __init__(self, *command: str) -> None:
        self.command = command
        self.pids: list[int] = []

    def start(self, _words: Sequence[str], _environment: Mapping[str, str], log: int, channel: int) -> int:
        del log, channel
        started = subprocess.Popen(self.command, start_new_session=True)
        started.returncode = 0  # it is waited for by its number
        self.pids.append(started.pid)
        return started.pid


class Stage:
    """A worker in a graph of its own; how its processes have ended is in `ends`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path, *command: str, **settings: Any) -> None:
        monkeypatch.setenv("SLABWIRE_RUN_DIR", str(folder))
        spec = GraphSpec("stage", (ActorSpec("one", CodeSpec("module", "x", "X"), (), **settings),))
        planned = plan(spec, Topology.read())
        self.board = Switchboard(Routing(spec), planned)
        self.directory = RunDirectory("stage")
        self.programs = Programs(*command)
        self.ends: list[ExitReason | None] = []
        self.worker = WorkerHandle(
            planned.workers[0],
            self.board.home_of("one"),
            spec.actors,
            self.directory,
            self.programs,  # type: ignore[arg-type]
            lambda worker: self.ends.append(worker.last_end),
        )

    def spawn(self) -> None:
        self.worker.spawn("ipc://nobody").close()

    async def end(self) -> None:
        self.worker.kill()
        await self.worker.wait_ended(None)

    def close(self) -> None:
        self.board.close()
        self.directory.remove()


def test_the_end_of_a_hung_worker_does_not_meet_its_successor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stage = Stage(monkeypatch, tmp_path, "sleep", "60", hang_after_s=1e-6)  # which dies of the signal for its stacks
    monkeypatch.setattr(child, "_STACKS_WITHIN_S", 0.05)

    async def run() -> None:
        stage.spawn()
        stage.worker.became_ready()
        stage.worker.end_if_hung(1, 0, ignores_input=False)
        later = asyncio.Event()
        asyncio.get_running_loop().call_later(0.06, later.set)
        await stage.worker.wait_ended(None)
        stage.spawn()
        await later.wait()
        assert os.waitid(os.P_PID, stage.worker.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        await stage.end()

    asyncio.run(run())
    stage.close()
    assert [each.kind for each in stage.ends if each] == ["hang", "signal"]


def test_who_has_ended_and_is_waited_for_to_say_why_is_not_late(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stage = Stage(monkeypatch, tmp_path, "false", start_timeout_s=1e-6)

    async def run() -> None:
        stage.spawn()
        os.waitid(os.P_PID, stage.worker.pid, os.WEXITED | os.WNOWAIT)
        await asyncio.sleep(0)  # reads what is ready
        await asyncio.sleep(0)
        stage.worker.end_if_hung(0, 0, ignores_input=False)
        await stage.worker.wait_ended(None)

    asyncio.run(run())
    stage.close()
    assert [str(each) for each in stage.ends] == ["ended with status 1"]


def test_a_process_that_cannot_be_watched_is_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stage = Stage(monkeypatch, tmp_path, "sleep", "60")

    def refuse(_pid: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async def run() -> None:
        with monkeypatch.context() as full:
            full.setattr(os, "pidfd_open", refuse)
            with pytest.raises(OSError, match="Too many open files"):
                stage.spawn()
        assert not stage.worker.is_alive
        with pytest.raises(ProcessLookupError):
            os.kill(stage.programs.pids[0], 0)
        stage.spawn()
        await stage.end()

    asyncio.run(run())
    stage.close()
    assert [each.status for each in stage.ends if each] == [-signal.SIGKILL]
