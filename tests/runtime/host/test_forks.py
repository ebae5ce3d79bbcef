"""Processes that handlers, owners and clients start: they get signals as any process has them, and nothing of ours."""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import slabwire
from forks_stage import Starts, next_number
from slabwire import Graph
from slabwire.runtime.launch.in_process import RunningInProcess
from slabwire.runtime.launch.running import Running


def starting(name: str) -> Graph:
    graph = Graph(name)
    starts, after = graph.add(Starts), graph.add(next_number)
    graph.connect(starts.out, after)
    for port in dir(starts):
        if port != "out":
            graph.expose(getattr(starts, port), reply=after if port == "pass_on" else getattr(starts, port))
    return graph


@pytest.fixture(scope="module", params=["in processes", "in this process"])
def running(request: pytest.FixtureRequest) -> Iterator[Running | RunningInProcess]:
    with starting("forks").run(in_process=request.param == "in this process") as started:
        ask(started, "shared")  # starts Python's tracker of shared memory, which would count as left behind by a test
        yield started
    resource_tracker._resource_tracker._stop()  # type: ignore[attr-defined]


def ask(running: Running | RunningInProcess, port: str, *values: Any) -> Any:
    """The answer but for its end, which says that the worker is the one that it was."""
    *answer, pid = running.client.call(f"starts.{port}", *values, timeout_s=60)
    (worker,) = (each for each in running.status()["workers"] if each["name"] in ("starts", "here"))
    assert (pid, worker["restarts"]) == (worker["pid"], 0)
    assert running.client.call("starts.pass_on", 1) == 2
    return answer


def test_pools(running: Running | RunningInProcess) -> None:
    for _ in range(5):
        assert ask(running, "pooled", "fork") == [25, 36, 1, 4]
    assert ask(running, "executed", "fork") == [49, 1, 4]
    if isinstance(running, Running):  # else their helpers would be left behind here
        assert ask(running, "pooled", "forkserver") == [25, 36, 1, 4]
        assert ask(running, "executed", "spawn") == [49, 1, 4]


def test_what_is_terminated_ends_by_it(running: Running) -> None:
    assert ask(running, "terminated") == [-signal.SIGTERM] * 3


@pytest.mark.parametrize(("port", "ended"), [("programs", -signal.SIGINT), ("awaited_programs", -signal.SIGTERM)])
def test_programs_have_their_signals(running: Running, port: str, ended: int) -> None:
    assert ask(running, port) == [ended, "[]"]


def test_terminals_managers_queues_and_memory_of_others(running: Running) -> None:
    assert ask(running, "terminal") == [0]
    assert ask(running, "shared") == [3, {"n": 1}, 0]


ENDS = {
    "return": 0,
    "raise": 1,
    "exit": 7,
    "terminate": -signal.SIGTERM,
    "user": -signal.SIGUSR1,
    "loop": 5,
    "old loop": 6,
    "context": 1,
    "child of a child": 24,
    "emit": 3,
    "loan": 3,
    "keep": 3,
    "listen": 3,
    "call": 3,
}


@pytest.mark.parametrize("how", ENDS)
def test_a_child_ends_as_it_says_and_alone(running: Running, how: str) -> None:
    in_process = isinstance(running, RunningInProcess)
    expected = 1 if how == "exit" and in_process else ENDS[how]  # sys.exit is an error there
    assert ask(running, "ends", how) == [expected]
    assert ask(running, "ends_later", how) == [expected]
    *items, _ = running.client.stream("starts.items", how, timeout_s=60)
    assert items == [expected]


def test_a_child_does_not_go_on_in_its_parents_loop(running: Running) -> None:
    assert ask(running, "ends_later", "await") == [1]
    assert running.client.call("starts.awaits_at_once", timeout_s=60) == [1]
    *items, _ = running.client.stream("starts.items", "yield", timeout_s=60)
    assert items == [0]


# -- owners and clients ----------------------------------------------------------------------------------------------


def status_of_child(work: Callable[[], object]) -> int:
    """What a forked child ends with that does `work`: 3 after an error that says what to do."""
    child = os.fork()
    if not child:
        status = 0
        faulthandler.disable()
        try:
            work()
        except slabwire.Disconnected as error:
            status = 3 if "connect here: slabwire.connect" in str(error) else 4
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def count(n: int) -> Iterator[int]:
    yield from range(n)


def double(x: np.ndarray) -> np.ndarray:
    return x * 2


def doubling(name: str) -> Graph:
    graph = Graph(name)
    graph.expose(graph.add(double), graph.add(count))
    return graph


@pytest.mark.parametrize("in_process", [False, True])
def test_a_child_cannot_use_its_parents_client(in_process: bool) -> None:
    with doubling("parents").run(in_process=in_process) as running:
        client, ones = running.client, np.ones(100_000)
        doubled, items = client.call("double.double", ones), client.stream("count.count", 3)
        assert next(items) == 0
        close = client.close
        assert status_of_child(lambda: client.call("double.double", ones, timeout_s=30)) == 3
        assert status_of_child(lambda: next(items)) == 3
        assert status_of_child(lambda: list(client.stream("count.count", 3))) == 3
        assert status_of_child(lambda: doubled.sum()) == -signal.SIGSEGV
        assert status_of_child(lambda: (close(), running.stop())) == 0
        if not in_process:
            assert status_of_child(lambda: slabwire.connect("parents").call("double.double", ones)) == 0
        assert client.call("double.double", ones).sum() == 200_000
        assert list(items) == [1, 2]


def test_what_a_child_drops_takes_no_memory_of_its_own_along() -> None:
    with doubling("drops").run() as running:
        held = [running.client.call("double.double", np.ones(100_000)) for _ in range(4)]

        def drop() -> None:
            mine = [np.ones(100_000) for _ in range(50)]  # lies where the kernel finds room
            held.clear()
            running.client.close()
            vars(running).clear()
            gc.collect()
            assert all(each.sum() == 100_000 for each in mine)

        assert status_of_child(drop) == 0
        assert held[0].sum() == 200_000


def test_a_child_cannot_use_a_remote_client() -> None:
    ones = np.ones(1000)
    with doubling("far").run(listen="tcp://127.0.0.1:0") as running:
        (address,) = running.status()["gateway"]["listen"]
        with slabwire.connect(address) as client:
            items = client.stream("count.count", 3)
            assert next(items) == 0
            close = client.close
            assert status_of_child(lambda: client.call("double.double", ones, timeout_s=30)) == 3
            assert status_of_child(lambda: next(items)) == 3
            assert status_of_child(close) == 0
            assert client.call("double.double", ones).sum() == 2000
            assert list(items) == [1, 2]

        async def use(where: str) -> None:
            async with slabwire.connect_async(where) as client:
                assert (await client.call("double.double", ones)).sum() == 2000
                close = client.close
                assert status_of_child(lambda: asyncio.run(client.call("double.double", ones, timeout_s=30))) == 3
                assert status_of_child(lambda: asyncio.run(close())) == 0
                assert (await client.call("double.double", ones)).sum() == 2000

        asyncio.run(use("far"))
        asyncio.run(use(address))


OWNER = """
import asyncio, atexit, os, sys
import slabwire
from slabwire import Graph
def double(n: int) -> int:
    return 2 * n
graph = Graph("exits")
graph.expose(graph.add(double))
if __name__ == "__main__":
    in_process = sys.argv[1:] == ["here"]
    with graph.run(in_process=in_process) as running:
        client = slabwire.connect("exits")
        atexit.register(client.close)
        assert client.call("double.double", 1) == 2
        child = os.fork()
        if not child:
            sys.exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert client.call("double.double", 2) == 4
        client.close()
        print("went on")
"""


@pytest.mark.parametrize("where", ["here", "in processes"])
def test_a_child_of_an_owner_exits_with_all_its_clean_up(tmp_path: Path, where: str) -> None:
    script = tmp_path / "owner.py"
    script.write_text(OWNER)
    ran = subprocess.run([sys.executable, str(script), where], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "went on\n", "")
