"""Programs under launchers that leave them odd things: ignored and blocked signals, closed descriptors, low limits."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slabwire.cli.exits import Exit
from slabwire.runtime.clients.control import Control
from slabwire.runtime.control.verbs import Status
from waiting import wait_until

OWNER = """
import os, signal, subprocess, sys, time
import slabwire
from slabwire import Actor, Graph

ASK = (
    "import signal; numbers = signal.valid_signals() - {signal.SIGPIPE, signal.SIGXFSZ}; "
    "print([*(each for each in numbers if signal.getsignal(each) == signal.SIG_IGN), "
    "*signal.pthread_sigmask(signal.SIG_BLOCK, [])])"
)

class Tell(Actor):
    def ignored(self) -> str:
        print("printed")
        here = [each for each in signal.valid_signals() if signal.getsignal(each) == signal.SIG_IGN]
        told = subprocess.run([sys.executable, "-c", ASK], stdout=subprocess.PIPE, text=True).stdout.strip()
        return f"{sorted(map(int, here))} {signal.pthread_sigmask(signal.SIG_BLOCK, [])} {told}"

    def pid(self) -> int:
        return os.getpid()

graph = Graph("inherits")
tell = graph.add(Tell)
graph.expose(tell.ignored, tell.pid)

if __name__ == "__main__":
    with graph.run() as running:
        said = running.client.call("tell.ignored")
        first = running.client.call("tell.pid")
        os.kill(first, signal.SIGKILL)
        assert running.client.call("tell.pid", retries=3) != first
        supervisor, worker = running.pid, running.client.call("tell.pid")
    with open(sys.argv[1], "w") as file:
        file.write(said)
    assert running.wait() == 0
    running = graph.run().__enter__()
    os.kill(running.pid, signal.SIGKILL)
    assert running.wait() != 0  # also where the kernel keeps no status
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(tmp_path / "run"))
    (tmp_path / "owner.py").write_text(OWNER)
    return tmp_path


def ignore(*names: str) -> Callable[[], object]:
    def prepare() -> None:
        for name in names:
            signal.signal(getattr(signal, name), signal.SIG_IGN)

    return prepare


def block(numbers: Any) -> Callable[[], object]:
    return lambda: signal.pthread_sigmask(signal.SIG_BLOCK, numbers)


def close(*descriptors: int) -> Callable[[], object]:
    return lambda: list(map(os.close, descriptors))


LAUNCHERS = {
    "SIGCHLD is ignored": ignore("SIGCHLD"),
    "as by nohup, in the background": ignore("SIGHUP", "SIGINT", "SIGQUIT"),
    "all that may be is ignored": ignore("SIGCHLD", "SIGHUP", "SIGINT", "SIGTERM", "SIGPIPE", "SIGUSR1", "SIGUSR2"),
    "SIGINT and SIGTERM are blocked": block({signal.SIGINT, signal.SIGTERM}),
    "all are blocked": block(signal.valid_signals()),
    "no input": close(0),
    "no input, no errors": close(0, 2),
    "no output, no errors": close(1, 2),
    "nothing is open": close(0, 1, 2),
}


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_program_that_embeds_a_graph(folder: Path, launcher: str) -> None:
    ran = subprocess.run(
        [sys.executable, "owner.py", "said"],
        cwd=folder,
        preexec_fn=LAUNCHERS[launcher],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert (folder / "said").read_text() == "[13, 25] set() []"  # SIGPIPE and SIGXFSZ, which Python ignores itself


@pytest.mark.parametrize("launcher", ["SIGCHLD is ignored", "all are blocked", "nothing is open"])
def test_the_command_runs_and_hears_its_signals(folder: Path, launcher: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "slabwire", "run", "--no-plan", "owner.py"],
        cwd=folder,
        preexec_fn=LAUNCHERS[launcher],
        stdout=subprocess.PIPE,
    ) as command:
        assert command.stdout is not None
        if launcher == "nothing is open":  # then the command cannot say that it has heard
            log = folder / "run" / "inherits" / "logs" / "supervisor.log"
            wait_until(lambda: log.exists() and "inherits is ready" in log.read_text())
        else:
            next(line for line in command.stdout if b"inherits is ready" in line)
        command.send_signal(signal.SIGTERM)
        said = command.stdout.read().decode()
    assert command.returncode in ((Exit.OK, Exit.TERMINATED) if launcher == "nothing is open" else (Exit.OK,))
    assert launcher == "nothing is open" or "inherits was drained and stopped" in said


def test_nohup_is_respected(folder: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "slabwire", "run", "--no-plan", "owner.py"],
        cwd=folder,
        preexec_fn=ignore("SIGHUP"),
        stdout=subprocess.PIPE,
        text=True,
    ) as command:
        assert command.stdout is not None
        next(line for line in command.stdout if "inherits is ready" in line)
        command.send_signal(signal.SIGHUP)
        command.send_signal(signal.SIGTERM)
        assert "inherits was drained and stopped" in command.stdout.read()
    assert command.returncode == 0


def test_what_a_client_opens_does_not_lie_in_the_place_of_standard_descriptors(folder: Path) -> None:
    text = """
import os, sys, slabwire
with slabwire.connect("inherits", wait_s=60) as client:
    client.call("tell.pid")
    assert [os.readlink(f"/proc/self/fd/{each}") for each in range(3)] == ["/dev/null"] * 3
    assert not any(map(os.get_inheritable, range(3)))
"""
    (folder / "client.py").write_text(text)
    with subprocess.Popen(
        [sys.executable, "-m", "slabwire", "run", "owner.py"], cwd=folder, stdout=subprocess.DEVNULL
    ) as command:
        ran = subprocess.run([sys.executable, "client.py"], cwd=folder, preexec_fn=close(0, 1, 2), check=False)
        command.send_signal(signal.SIGTERM)
    assert (ran.returncode, command.returncode) == (0, 0)


# -- limits ----------------------------------------------------------------------------------------------------------


def limited(folder: Path, files: int, *command: str) -> subprocess.CompletedProcess[str]:
    """A program that may have so many open files, and not raise that."""
    return subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (files, files)),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("files", [12, 18, 22, 32, 47])
def test_too_few_descriptors_are_named_with_the_remedy(folder: Path, files: int) -> None:
    expected = rf"inherits.* needs \d+ open files.* {files} \(RLIMIT_NOFILE\): raise the limit .*`ulimit -n 4096`"
    embedded = limited(folder, files, "owner.py", "said")
    assert embedded.returncode == 1
    assert re.search(rf"StartError: .*{expected}", embedded.stderr)
    command = limited(folder, files, "-m", "slabwire", "run", "owner.py")
    assert command.returncode in (1, 4)
    assert re.search(rf"error: .*{expected.removeprefix('inherits.*')}", command.stderr)
    assert not (folder / "run" / "inherits").exists()


def test_the_fewest_descriptors_that_are_asked_for_do(folder: Path) -> None:
    ran = limited(folder, 48, "owner.py", "said")
    assert (ran.returncode, ran.stderr) == (0, "")


def test_a_client_without_descriptors_is_not_aborted(folder: Path) -> None:
    text = """
import os, resource, sys, slabwire
with slabwire.connect(sys.argv[1], wait_s=60): pass
used = len(os.listdir("/proc/self/fd")) - 1
for room in range(17):
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + room, 4096))
    try:
        slabwire.connect(sys.argv[1]).close()
    except slabwire.Overloaded as error:
        assert f"this process has {used} of {used + room} (RLIMIT_NOFILE): raise the limit" in str(error)
        refused = room
assert refused == 15, refused
"""
    (folder / "client.py").write_text(text)
    with subprocess.Popen(
        [sys.executable, "-m", "slabwire", "run", "owner.py", "--listen", "tcp://127.0.0.1:0"],
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
    ) as command:
        assert command.stdout is not None
        next(line for line in command.stdout if "inherits is ready" in line)
        with Control("inherits") as control:
            (address,) = control.request(Status())["gateway"]["listen"]
        ran = [
            subprocess.run([sys.executable, "client.py", each], cwd=folder, stderr=subprocess.PIPE, check=False)
            for each in ("inherits", address)
        ]
        command.send_signal(signal.SIGTERM)
        command.stdout.read()
    assert [(each.returncode, each.stderr) for each in ran] == [(0, b"")] * 2
