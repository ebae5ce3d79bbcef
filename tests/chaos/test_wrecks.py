"""What actors do to their process: each end is named, reported and mended, and the rest of the graph goes on."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import slabwire
from fake_graphs import invoke
from slabwire import Graph
from slabwire.runtime.clients.control import Control
from slabwire.runtime.control.verbs import Restart
from slabwire.runtime.postmortem.report_store import reports
from slabwire.shm.cgroup import memory_group
from stage import Echo
from waiting import wait_until, worker_of
from wrecks import Stalls, Wrecks


class Service(NamedTuple):
    """A graph of an actor that is wrecked, one that may stall at its start, and one that nothing happens to."""

    running: Any
    folder: Path

    def report(self, worker: str) -> dict[str, Any]:
        """The newest."""
        return next(each for each in reports("wrecks") if each["worker"] == worker)

    def log(self, worker: str) -> str:
        return Path(self.running.directory, "logs", f"{worker}.log").read_text(errors="replace")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("wrecks")
    graph = Graph("wrecks")
    wrecks = graph.add(Wrecks, max_attempts=1, hang_after_s=0.6)
    stalls, echo = graph.add(Stalls, folder=str(folder), start_timeout_s=2), graph.add(Echo)
    ports = [name for name in vars(Wrecks) if not name.startswith("_")]
    graph.expose(*(getattr(wrecks, name) for name in ports), stalls.fine, echo.who)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLABWIRE_RUN_DIR", str(folder / "run"))
        with graph.run() as running:
            for port in ("echo.who", "wrecks.fine", "stalls.fine"):
                running.client.call(port)
            yield Service(running, folder)


@pytest.fixture(autouse=True)
def others_go_on(service: Service) -> Iterator[None]:
    before = service.running.client.call("echo.who")
    yield
    assert service.running.client.call("echo.who") == before


WRECKS: list[tuple[str, list[int], str, str]] = [
    ("loop", [], "hang", "^hung and was killed$"),
    ("close_and_wait", [], "hang", "^hung and was killed$"),
    ("segfault", [], "signal", r"^killed by SIGSEGV \(C code touched memory that is not there\)$"),
    ("abort", [], "signal", r"^killed by SIGABRT \(a C library gave up.* or os\.abort was called\)$"),
    ("exit", [7], "error", r"^ended with status 7: sys\.exit\(7\) was called \(.*wrecks.py:\d+\)$"),
    ("exit", [0], "error", r"^ended with status 0: sys\.exit\(0\) was called"),
    ("exit_in_coroutine", [7], "error", r"^ended with status 7: sys\.exit\(7\) was called"),
    ("hard_exit", [9], "exit", "^ended with status 9$"),
    ("interrupt", [], "error", r"^ended with status 3: KeyboardInterrupt \("),
]


@pytest.mark.parametrize(
    ("port", "arguments", "kind", "reason"), WRECKS, ids=[f"{port}{arguments}" for port, arguments, *_ in WRECKS]
)
def test_an_end_in_a_handler(service: Service, port: str, arguments: list[int], kind: str, reason: str) -> None:
    client, before = service.running.client, worker_of(service.running, "wrecks")
    with pytest.raises(slabwire.DeadLetter, match="died once"):
        client.call(f"wrecks.{port}", *arguments)
    assert client.call("wrecks.fine") != before["pid"]
    after, report = worker_of(service.running, "wrecks"), service.report("wrecks")
    assert after["restarts"] == before["restarts"] + 1
    assert (report["pid"], report["kind"], report["reason"]) == (before["pid"], kind, after["last_exit"])
    assert re.search(reason, report["reason"])
    assert [(each["port"], each["attempt"]) for each in report["handling"]] == [(f"wrecks.{port}", 1)]
    assert report["next"].startswith("it is started again")
    waiting = [each for lane in report["lanes"] for each in lane["records"] if each["waits"]]
    assert {each["port"] for each in waiting} <= {f"wrecks.{port}"}
    assert [each["what"] for each in report["events"] if each["what"] != "input"][-1] == "ready"
    if port in ("loop", "segfault", "abort"):
        assert f"in {port}" in report["stacks"]
    if kind == "error":
        assert f"in {port}" in report["traceback"]


@pytest.mark.parametrize("port", ["close_all", "close_most"])
def test_closed_descriptors(service: Service, port: str) -> None:
    """It may still answer by its memory; when it next wants to sleep, or ZeroMQ does, it ends."""
    client, before = service.running.client, worker_of(service.running, "wrecks")
    try:
        assert client.call(f"wrecks.{port}") == "closed"
    except slabwire.DeadLetter as error:
        assert "died once" in str(error)  # noqa: PT017 - either may be
    wait_until(lambda: worker_of(service.running, "wrecks")["pid"] not in (0, before["pid"]))
    assert client.call("wrecks.fine") != before["pid"]
    assert service.report("wrecks")["pid"] == before["pid"]


def test_a_child_that_lives_on_ends_with_its_worker(service: Service) -> None:
    client = service.running.client
    child, worker = client.call("wrecks.fork"), client.call("wrecks.fine")
    assert os.getsid(child) == worker
    os.kill(worker, signal.SIGKILL)
    assert client.call("wrecks.fine") != worker
    wait_until(lambda: not _lives(child))


def test_a_child_that_comes_back_from_the_handler_does_no_harm(service: Service) -> None:
    client, worker = service.running.client, service.running.client.call("wrecks.fine")
    child = client.call("wrecks.fork_and_return")
    assert child > 0, "the parent's answer"
    wait_until(lambda: not _lives(child))
    assert client.call("wrecks.fine") == worker


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_a_thread_that_raises_is_in_the_log(service: Service) -> None:
    client = service.running.client
    assert client.call("wrecks.raise_in_thread") == client.call("wrecks.fine")
    wait_until(lambda: "nobody waits for this thread" in service.log("wrecks"))


@pytest.mark.parametrize("port", ["ignore_signals", "forget_signals"])
def test_without_signal_handlers_it_can_still_be_restarted(service: Service, port: str) -> None:
    client = service.running.client
    worker = client.call(f"wrecks.{port}")
    with Control("wrecks") as control:
        control.request(Restart(actor="wrecks"))
    wait_until(lambda: worker_of(service.running, "wrecks")["pid"] not in (0, worker))
    assert client.call("wrecks.fine") != worker
    if port == "ignore_signals":
        report = service.report("wrecks")
        assert report["reason"] == "did not stop within 0.6 s (hang_after_s) and was killed"
        assert report["next"] == "it was told to end"


def test_who_never_comes_back_from_its_start_is_killed_and_tried_again(service: Service) -> None:
    client, before = service.running.client, worker_of(service.running, "stalls")
    (service.folder / "stall").touch()
    os.kill(before["pid"], signal.SIGKILL)
    wait_until(lambda: not (service.folder / "stall").exists())
    (reason,) = service.running.status()["not_ready"]
    assert reason["actor"] == "stalls"
    assert worker_of(service.running, "stalls")["state"] == "restarting"
    assert client.call("wrecks.fine")
    assert client.call("stalls.fine") != before["pid"]  # waits for the third process
    report = service.report("stalls")
    assert report["reason"] == "did not start within 2 s (start_timeout_s) and was killed"
    assert not report["was_ready"]
    assert "in on_start" in report["stacks"]


def test_reports_are_read_on_the_command_line(service: Service) -> None:
    with pytest.raises(slabwire.DeadLetter):
        service.running.client.call("wrecks.segfault")
    text = invoke("logs", "wrecks", "wrecks", "--crash").stdout
    for part in (
        r"^wrecks of wrecks, process \d+: killed by SIGSEGV",
        r"\nthen: it is started again",
        r"\nit was handling:\n  wrecks.segfault from client-1, attempt 1, request \d+ of client-1, trace \w{32}\n",
        r"\nlast records of its lanes:\n  ",
        r"\n    \d+: data for wrecks.segfault, .*: waits\n",
        r"\nflight recorder:\n(.*\n)*  .* s before: wrecks.fine from client-1, attempt 1, .*: answered in \d+ µs\n",
        r"\nstacks:\n  Fatal Python error: Segmentation fault\n(.*\n)*.* in segfault\n",
    ):
        assert re.search(part, text), (part, text)
    latest = json.loads(invoke("logs", "wrecks", "--crash", "--format", "json").stdout)
    assert latest["kind"] == "signal"
    listed = invoke("logs", "wrecks", "--crash", "--all").stdout.splitlines()
    assert "killed by SIGSEGV" in listed[2]
    assert len(invoke("logs", "--crash", "--all", "--format", "json").stdout.splitlines()) == len(listed) - 2
    kept = sorted((service.folder / "run" / ".crashes" / "wrecks").iterdir())
    assert all(each.stat().st_mode & 0o777 == 0o600 for each in kept)


# -- memory ----------------------------------------------------------------------------------------------------------

_EATER = """
import json, os, sys
from pathlib import Path
Path(sys.argv[1], "cgroup.procs").write_text(str(os.getpid()))
import slabwire
from stage import Echo
from wrecks import Eats
graph = slabwire.Graph("eats")
eats, echo = graph.add(Eats, max_attempts=1), graph.add(Echo)
graph.expose(eats.eat, eats.fine, echo.who)
if __name__ == "__main__":
    with graph.run() as running:
        other = running.client.call("echo.who")
        try:
            running.client.call("eats.eat")
        except slabwire.DeadLetter as error:
            print(error)
        running.client.call("eats.fine")
        print(running.status()["workers"][0]["last_exit"])
        print(other == running.client.call("echo.who"))
"""


@pytest.fixture
def limited(service: Service) -> Iterator[Path]:
    """A control group with a limit of memory, of version 1 or 2, where this machine lets us make one."""
    above = memory_group(Path("/"), os.getpid())
    if above is None:
        pytest.skip("no control group of this process accounts for memory")
    group = above / f"slabwire-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made below {above}: {error}")
    try:
        names = [each for each in ("memory.max", "memory.limit_in_bytes") if (group / each).exists()]
        if not names:
            pytest.skip(f"control groups below {above} have no limit of memory (cgroup.subtree_control)")
        (group / names[0]).write_text(str(400 << 20))
        yield group
    finally:
        wait_until(lambda: not (group / "cgroup.procs").read_text())
        group.rmdir()


def test_a_worker_that_is_killed_for_memory(limited: Path, tmp_path: Path) -> None:
    script = tmp_path / "eater.py"
    script.write_text(_EATER)
    environment = {**os.environ, "SLABWIRE_RUN_DIR": str(tmp_path / "run")}
    ran = subprocess.run(
        [sys.executable, script, limited], capture_output=True, text=True, check=False, env=environment
    )
    assert ran.returncode == 0, ran.stderr
    dead, reason, others = ran.stdout.splitlines()
    assert "died once" in dead
    assert reason == f"killed by the kernel for memory (SIGKILL): the memory limit of {limited} was reached"
    assert others == "True"
