"""The command line on a graph that really runs: one process each, as in a user's shell."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

import pytest

from slabwire.cli.exits import Exit

GRAPH = """
import os
import slabwire

class Double(slabwire.Actor):
    def on_start(self) -> None:
        print("double has started", flush=True)

    def number(self, n: int) -> int:
        return 2 * n

class Add(slabwire.Actor):
    def one(self, n: int) -> int:
        return n + 1

graph = slabwire.Graph("sums")
double = graph.add(Double, replicas=2)
add = graph.add(Add)
graph.connect(double, add)
graph.expose(double.number)
"""


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the graph's file; its path is short enough for Unix sockets."""
    with TemporaryDirectory(prefix="sw-", dir="/tmp") as folder:
        (Path(folder) / "sums.py").write_text(GRAPH)
        monkeypatch.setenv("SLABWIRE_RUN_DIR", f"{folder}/run")
        yield Path(folder)


def slabwire(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "slabwire", *words], capture_output=True, text=True, check=False)


def document(*words: str) -> Any:
    done = slabwire(*words, "--format", "json")
    assert done.returncode == Exit.OK, done.stderr
    return json.loads(done.stdout)


class Run:
    """`slabwire run`, ready for calls."""

    def __init__(self, home: Path) -> None:
        command = [sys.executable, "-m", "slabwire", "run", str(home / "sums.py"), "--format", "json"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
        assert self.process.stdout is not None
        self.output: IO[str] = self.process.stdout
        self.wait_for("ready")

    def wait_for(self, event: str) -> dict[str, Any]:
        """Reads on until an event has come; what the logs echo in between is passed over."""
        for line in self.output:
            found: dict[str, Any] = json.loads(line)
            if found["event"] == event:
                return found
        raise AssertionError(f"`slabwire run` ended with {self.process.wait()} before {event!r}")

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)


@pytest.fixture
def run(home: Path) -> Iterator[Run]:
    started = Run(home)
    with started.process, started.output:
        yield started
        if started.process.poll() is None:
            started.signal(signal.SIGTERM)
            started.process.wait()
    assert not (home / "run" / "sums").exists()


def call(number: int) -> int:
    import slabwire as package

    with package.connect("sums") as client:
        answer = client.call("double.number", number, timeout_s=10.0)
    assert isinstance(answer, int)
    return answer


def test_a_graph_is_watched_restarted_and_stopped(run: Run, home: Path) -> None:
    assert [call(number) for number in range(4)] == [1, 3, 5, 7]
    (listed,) = document("ps")["graphs"]
    assert (listed["graph"], listed["state"]) == ("sums", "ready")

    top = document("top", "--once")
    handled = {actor["name"]: actor["handled"] for worker in top["workers"] for actor in worker["actors"]}
    assert handled["add"] == 4
    assert handled["double[0]"] + handled["double[1]"] == 4
    assert "supervisor: pid " in slabwire("top", "sums", "--once").stdout

    assert slabwire("logs", "sums", "double", "--grep", "started").stdout.count("double has started") == 2
    assert document("dead")["dead"] == []
    assert document("layout", "sums")["segments"]
    leases = document("leases", "sums")
    assert (leases["silent"], leases["blocks"], set(leases["pools"])) == ([], [], {"double[0]", "double[1]", "add"})
    assert slabwire("leases").stdout.startswith("double[0]: 0 B of ")
    assert [edge["full"] for edge in top["edges"]] == [0]

    before = {worker["name"]: worker["pid"] for worker in top["workers"]}
    assert document("restart", "add")["restarted"] == ["add"]
    after = before
    while after["add"] in (before["add"], 0):
        after = {worker["name"]: worker["pid"] for worker in document("top", "--once")["workers"]}
    assert call(10) == 21
    assert after["double[0]"] == before["double[0]"]

    assert document("stop")["stopped"]
    run.wait_for("stopped")
    assert run.process.wait() == Exit.OK
    assert slabwire("top", "--once").returncode == Exit.NOT_RUNNING
    assert document("ps") == {"graphs": []}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_drains(run: Run, number: signal.Signals) -> None:
    assert call(1) == 3
    run.signal(number)
    run.wait_for("stopped")
    assert run.process.wait() == Exit.OK


def test_a_killed_supervisor_is_reported(run: Run, home: Path) -> None:
    os.kill(document("ps")["graphs"][0]["supervisor"]["pid"], signal.SIGKILL)
    assert run.process.wait() == Exit.LOST
    assert document("ps") == {"graphs": []}  # removes what the supervisor could not


def test_the_same_name_twice(run: Run, home: Path) -> None:
    second = slabwire("run", str(home / "sums.py"))
    assert second.returncode == Exit.NOT_STARTED
    assert "Traceback" not in second.stderr
    assert call(2) == 5


def test_following_logs_ends_with_the_graph(run: Run) -> None:
    command = [sys.executable, "-m", "slabwire", "logs", "--follow"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as follower:
        assert follower.stdout is not None
        first = next(line for line in follower.stdout if "double has started" in line)
        assert first.startswith("double[")
        run.signal(signal.SIGTERM)
        _, complaints = follower.communicate()
    assert follower.returncode == Exit.OK
    assert complaints == "graph 'sums' has ended\n"
