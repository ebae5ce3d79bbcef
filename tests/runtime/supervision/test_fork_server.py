"""Workers that are forked instead of started: they are the supervisor's, whatever becomes of the fork server."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slabwire import Actor, Graph
from slabwire.runtime.launch.running import Running
from slabwire.runtime.supervision import fork_server
from waiting import wait_until, worker_of


class Tell(Actor):
    """Says about its process what a test wants to know."""

    def about(self) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "parent": os.getppid(),
            "session": os.getsid(0),
            "words": Path("/proc/self/cmdline").read_bytes().rstrip(b"\0").decode().split("\0"),
            "drawn": [float(np.random.random()), random.random()],
            "threads": os.environ["OPENBLAS_NUM_THREADS"],
            "descriptors": len(os.listdir("/proc/self/fd")),
        }


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    graph = Graph("forked")
    graph.expose(*(graph.add(Tell, name=name).about for name in ("one", "two")))
    graph.expose(graph.add(Tell, name="broad", cores=1).about)
    with graph.run() as started:
        for name in ("one", "two", "broad"):  # opens here what would else count as left behind by a test
            about(started, name)
        yield started


def about(running: Running, actor: str) -> dict[str, Any]:
    answer = running.client.call(f"{actor}.about", timeout_s=30)
    assert isinstance(answer, dict)
    return answer


def fork_server_of(running: Running) -> int:
    """0 where there is none."""
    children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
    commands = {int(pid): Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children}
    return next((pid for pid, command in commands.items() if b"fork_server_main" in command), 0)


def was_restarted(running: Running, actor: str) -> bool:
    return bool(worker_of(running, actor)["restarts"])


def test_a_forked_worker_is_as_one_that_was_started(running: Running) -> None:
    first, second = about(running, "one"), about(running, "two")
    for actor, found in (("one", first), ("two", second)):
        assert found["parent"] == running.pid
        assert found["session"] == found["pid"]
        assert found["words"][1:5] == ["-m", "slabwire.runtime.worker.main", "--name", actor]
        assert found["threads"] == "1"
    assert first["drawn"][0] != second["drawn"][0]
    assert first["drawn"][1] != second["drawn"][1]


def test_a_worker_that_was_not_handed_over_is_seen() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert fork_server._is_child(child.pid)
    assert not fork_server._is_child(os.getppid())
    child.communicate(b"\n")


def test_workers_outlive_the_fork_server(running: Running) -> None:
    before = {actor: about(running, actor)["pid"] for actor in ("one", "two")}
    forker = fork_server_of(running)
    assert forker
    os.kill(forker, signal.SIGKILL)
    wait_until(lambda: Path(f"/proc/{forker}/stat").read_text().rpartition(")")[2].split()[0] == "Z")
    assert {actor: about(running, actor)["pid"] for actor in ("one", "two")} == before
    for actor in ("one", "two"):  # the first is started without a fork server, the second has a new one
        os.kill(before[actor], signal.SIGKILL)
        wait_until(partial(was_restarted, running, actor))
        found = about(running, actor)
        assert found["pid"] != before[actor]
        assert found["parent"] == running.pid
    assert fork_server_of(running) not in (0, forker)
    assert "a worker is started without it" in (running.directory / "logs" / "supervisor.log").read_text()


def test_a_successor_that_stands_still_holds_up_nobody(running: Running) -> None:
    """It may be stopped before it is ready: its graph answers, and starts workers without it."""
    first = fork_server_of(running)
    assert first
    os.kill(first, signal.SIGKILL)
    os.kill(worker_of(running, "one")["pid"], signal.SIGKILL)
    second = wait_until(lambda: each if (each := fork_server_of(running)) not in (0, first) else 0)
    os.kill(second, signal.SIGSTOP)
    for actor in ("one", "two"):
        wait_until(partial(is_ready, running, actor))
        before = worker_of(running, actor)
        os.kill(before["pid"], signal.SIGKILL)
        wait_until(partial(is_successor_of, running, before))


def is_ready(running: Running, actor: str) -> bool:
    return bool(worker_of(running, actor)["state"] == "ready")


def is_successor_of(running: Running, before: dict[str, Any]) -> bool:
    now = worker_of(running, before["name"])
    return bool(now["state"] == "ready" and now["pid"] != before["pid"])
