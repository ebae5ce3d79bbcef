"""`slabwire run` in a user's terminal: keys, a closed window, a killed command, a full disk, unread output."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

import slabwire
from slabwire.cli.exits import Exit
from slabwire.runtime.control.verbs import Status
from terminal import Terminal
from waiting import wait_until

GRAPH = """
import os
import time
import slabwire

class Wait(slabwire.Actor):
    def until(self, path: str) -> str:
        while not os.path.exists(path):
            time.sleep(0.005)
        return "seen"

    def say(self, letters: int) -> int:
        print("x" * letters)
        return letters

graph = slabwire.Graph("patient")
wait = graph.add(Wait)
graph.expose(wait.until, wait.say)
"""
SLABWIRE = f"{sys.executable} -m slabwire"


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with TemporaryDirectory(prefix="sw-", dir="/tmp") as folder:
        (Path(folder) / "graph.py").write_text(GRAPH)
        monkeypatch.setenv("SLABWIRE_RUN_DIR", f"{folder}/run")
        monkeypatch.chdir(folder)
        yield Path(folder)


def call(port: str, argument: object) -> object:
    with slabwire.connect("patient") as client:
        return client.call(port, argument, timeout_s=30)


def is_at_work() -> bool:
    from slabwire.runtime.clients.control import Control

    with Control("patient") as control:
        (worker,) = control.request(Status())["workers"]
    return bool(worker["actors"][0]["waiting"])


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_ctrl_z_ctrl_c_and_ctrl_c_twice(home: Path) -> None:
    with Terminal() as terminal, ThreadPoolExecutor() as pool:
        terminal.command(f"{SLABWIRE} run graph.py --no-plan")
        terminal.read_until("patient is ready")
        terminal.keys("\x1a")  # stops the command, not the graph
        terminal.read_until("Stopped")
        assert call("wait.say", 3) == 3
        terminal.command("fg")
        terminal.read_until(r"wait +\| xxx\n")
        answer = pool.submit(call, "wait.until", str(home / "flag"))
        wait_until(is_at_work)
        terminal.keys("\x03")
        terminal.read_until(r"draining patient \(at most 10 s\); Ctrl-C again stops it now")
        (home / "flag").touch()
        terminal.read_until("patient was drained and stopped")
        assert answer.result() == "seen"
        assert terminal.status() == Exit.OK

        terminal.command(f"{SLABWIRE} run graph.py --no-plan")
        terminal.read_until("patient is ready")
        cut_off = pool.submit(call, "wait.until", str(home / "never"))
        wait_until(is_at_work)
        terminal.keys("\x03")
        terminal.read_until("draining patient")
        terminal.keys("\x03")
        terminal.read_until("patient was stopped before it was drained")
        assert terminal.status() == Exit.INTERRUPTED
        with pytest.raises(slabwire.SlabwireError):
            cut_off.result()


@pytest.mark.parametrize("end", ["the window is closed", "the command is killed"])
def test_the_graph_ends_with_its_command(home: Path, end: str) -> None:
    with Terminal() as terminal:
        if end == "the window is closed":  # of a job in the background the shell may or may not tell
            terminal.command(f"{SLABWIRE} run graph.py --no-plan")
            terminal.read_until("patient is ready")
        else:
            terminal.command(f"{SLABWIRE} run graph.py --no-plan & echo pid=$!")
            pid = int(terminal.read_until(r"pid=(\d+)\n")[1])
            terminal.read_until("patient is ready")
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda: not (home / "run" / "patient").exists())
    wait_until(lambda: not (home / "run" / "patient").exists())


def test_output_that_nobody_reads_ends_the_graph(home: Path) -> None:
    with Terminal() as terminal:
        terminal.command(f"{SLABWIRE} run graph.py | head -n 1; echo statuses=${{PIPESTATUS[*]}}")
        terminal.read_until("patient on ")
        assert terminal.read_until(r"statuses=(.*)\n")[1] == "0 0"
        assert "Traceback" not in terminal.text
    assert not (home / "run" / "patient").exists()


def test_a_taken_port_is_named(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, Terminal() as terminal:
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        terminal.command(f"{SLABWIRE} run graph.py --no-plan --listen {address}")
        terminal.read_until(rf"error: graph 'patient' did not start: cannot listen at {address}: the address is in use")
        assert terminal.status() == Exit.NOT_STARTED
    assert not (home / "run" / "patient").exists()


@pytest.fixture
def full_disk(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A small file system for the run directory."""
    folder, libc = home / "disk", ctypes.CDLL(None, use_errno=True)
    folder.mkdir()
    if libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, b"size=128k,mode=0700"):
        pytest.skip(f"no small file system can be mounted: {os.strerror(ctypes.get_errno())}")
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(folder))
    yield folder
    assert libc.umount2(os.fsencode(folder), 0) == 0


def test_a_full_disk_costs_logs_alone(full_disk: Path) -> None:
    with Terminal() as terminal:
        terminal.command(f"{SLABWIRE} run graph.py --no-plan > /dev/full")
        log = full_disk / "patient" / "logs" / "supervisor.log"
        wait_until(lambda: log.exists() and "is ready" in log.read_text())
        assert [call("wait.say", 50_000) for _ in range(5)] == [50_000] * 5
        assert os.statvfs(full_disk).f_bavail == 0
        terminal.keys("\x03")
        assert terminal.status() == Exit.OK
