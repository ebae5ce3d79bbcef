"""A call that was answered cannot be cancelled any more: what it has set going on edges goes on to its end."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import side_stage
import slabwire
from side_stage import expected, letter, seen, side_graph, talk
from slabwire import Actor, Graph
from slabwire.runtime.clients.control import Control
from slabwire.runtime.control.verbs import OpenGateway
from waiting import wait_until, worker_of
from zero_copy import zero_copy_thread  # noqa: F401 - a fixture


@pytest.fixture(autouse=True)
def run_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(tmp_path / "run"))


@pytest.fixture
def running(tmp_path: Path) -> Iterator[slabwire.Running]:
    with side_graph(tmp_path).run(listen="tcp://127.0.0.1:*") as running:
        yield running
        (tmp_path / "gate").touch()


def gateway_of(running: Any) -> dict[str, Any]:
    with Control(running.name) as control:
        return control.request(OpenGateway())


def cancelled(running: Any, actor: str) -> int:
    return int(worker_of(running, actor)["actors"][0]["cancelled"])


def kill(running: Any, *names: str) -> None:
    for name in names:
        os.kill(worker_of(running, name)["pid"], signal.SIGKILL)


def closes(where: str, first: int, _: Any) -> None:
    asyncio.run(talk(where, first))


def dies(where: str, first: int, _: Any, *, end: Callable[[subprocess.Popen[bytes]], None] | None = None) -> None:
    command = [sys.executable, side_stage.__file__, where, str(first)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as client:
        try:
            assert client.stdout is not None
            assert client.stdout.readline() == b"answered\n"
            if end is not None:
                end(client)
        finally:
            client.kill()


def loses_its_gateway(where: str, first: int, running: Any) -> None:
    dies(where, first, running, end=lambda _: os.kill(gateway_of(running)["pid"], signal.SIGKILL))


LEAVINGS = [("near", closes), ("near", dies), ("far", closes), ("far", dies), ("far", loses_its_gateway)]


@pytest.mark.parametrize(("where", "leave"), LEAVINGS)
def test_what_was_answered_goes_on_and_the_rest_is_cancelled(
    tmp_path: Path, running: slabwire.Running, where: str, leave: Callable[..., None]
) -> None:
    """Whoever leaves, and however: nothing of the answered calls is lost, nothing of the others is done."""
    leave(running.name if where == "near" else str(gateway_of(running)["listen"][0]), 100, running)
    wait_until(lambda: cancelled(running, "sides"))  # the first stood at the gate; with it all others are known
    (tmp_path / "gate").touch()
    wait_until(lambda: len(seen(tmp_path)) >= len(expected(100)))
    wait_until(lambda: cancelled(running, "sides") == 3)
    wait_until(lambda: not worker_of(running, "deep")["actors"][0]["waiting"])
    assert seen(tmp_path) == expected(100)


def test_a_client_of_ordinary_code(tmp_path: Path, running: slabwire.Running) -> None:
    with slabwire.connect(running.name) as client:
        answers = [client.call("front.take", **letter(n)) for n in range(40)]
    with slabwire.connect(str(gateway_of(running)["listen"][0])) as client:
        answers += [client.call("front.take", **letter(n)) for n in range(40, 60)]
    assert answers == list(range(60))
    (tmp_path / "gate").touch()
    wait_until(lambda: len(seen(tmp_path)) == 60)
    assert seen(tmp_path) == list(range(60))


def test_a_client_is_closed_while_a_thread_waits(tmp_path: Path, running: slabwire.Running) -> None:
    with ThreadPoolExecutor(1) as pool:
        with slabwire.connect(running.name) as client:
            waiting = pool.submit(client.call, "front.take", **letter(-1), timeout_s=None)
            wait_until(lambda: worker_of(running, "sides")["actors"][0]["in_flight"])
            assert client.call("front.take", **letter(2)) == 2
        with pytest.raises(slabwire.Disconnected, match="closed"):
            waiting.result()
    wait_until(lambda: cancelled(running, "sides") == 1)
    (tmp_path / "gate").touch()
    wait_until(lambda: seen(tmp_path) == [2])


def test_nothing_stays_of_a_client_that_left(tmp_path: Path, running: slabwire.Running) -> None:
    """Its memory is kept while it is needed, and no longer."""
    assert running.client.call("front.take", **letter(0)) == 0
    (tmp_path / "gate").touch()
    wait_until(lambda: seen(tmp_path) == [0])
    (tmp_path / "gate").unlink()
    before = running.status()
    with slabwire.connect(running.name) as client:
        for n in range(1, 21):
            assert client.call("front.take", **letter(n)) == n
    wait_until(lambda: running.status()["clients"] == before["clients"])
    assert running.status()["memory_bytes"] > before["memory_bytes"]
    (tmp_path / "gate").touch()
    wait_until(lambda: running.status()["memory_bytes"] == before["memory_bytes"])
    assert seen(tmp_path) == list(range(21))


@pytest.mark.parametrize("struck", [("sides",), ("front",), ("deep",), ("answers",), ("front", "sides", "deep")])
def test_workers_die_after_the_answer_and_the_caller(
    tmp_path: Path, running: slabwire.Running, struck: tuple[str, ...]
) -> None:
    """What lies in lanes, what was begun, and what waits for room in a full edge: each comes once to the end."""
    closes(running.name, 100, running)
    kill(running, *struck)
    wait_until(lambda: cancelled(running, "sides"))
    (tmp_path / "gate").touch()
    wait_until(lambda: len(seen(tmp_path)) >= len(expected(100)))
    wait_until(lambda: cancelled(running, "sides") == 3)
    assert seen(tmp_path) == expected(100)


@pytest.mark.parametrize("is_killed", [False, True])
def test_an_answered_call_may_wait_for_room_when_its_caller_leaves(tmp_path: Path, is_killed: bool) -> None:
    with side_graph(tmp_path, capacity=2).run() as running:
        with slabwire.connect(running.name) as client:
            for n in range(4):  # one stands at the gate, two wait, and one finds no room
                assert client.call("front.take", **letter(n)) == n
        wait_until(lambda: running.status()["clients"] == 0)
        if is_killed:
            kill(running, "front")
        (tmp_path / "gate").touch()
        wait_until(lambda: len(seen(tmp_path)) == 4)
    assert seen(tmp_path) == [0, 1, 2, 3]


@pytest.mark.parametrize("in_process", [False, True])
@pytest.mark.parametrize("when_full", ["block", "drop_oldest"])
def test_a_drain_waits_for_side_branches(tmp_path: Path, in_process: bool, when_full: str) -> None:
    (tmp_path / "gate").touch()
    count = 20
    graph = side_graph(tmp_path, capacity=count // 2, when_full=when_full, pause_s=0.005)
    with graph.run(in_process=in_process) as running:
        assert [running.client.call("front.take", **letter(n)) for n in range(count)] == list(range(count))
    assert seen(tmp_path) == list(range(count))


def test_an_async_graph_drains_too(tmp_path: Path) -> None:
    (tmp_path / "gate").touch()

    async def scene(*, in_process: bool, first: int) -> None:
        graph = side_graph(tmp_path, pause_s=0.005)
        launch: Any = graph.run(in_process=in_process)
        async with launch as running:
            calls = (running.client.call("front.take", **letter(n)) for n in range(first, first + 20))
            assert await asyncio.gather(*calls) == list(range(first, first + 20))

    asyncio.run(scene(in_process=False, first=0))
    asyncio.run(scene(in_process=True, first=20))
    assert seen(tmp_path) == list(range(40))


def test_what_a_drain_cuts_off_is_said(tmp_path: Path) -> None:
    with side_graph(tmp_path).run(drain_timeout_s=0.2) as running:
        assert [running.client.call("front.take", **letter(n)) for n in range(5)] == list(range(5))
        log = Path(running.directory) / "logs" / "supervisor.log"
        kept = os.open(log, os.O_RDONLY)
    try:
        assert b"5 messages were cut off (sides 5)" in os.pread(kept, 1 << 20, 0)
    finally:
        os.close(kept)


def test_the_deadline_of_an_answered_call_is_no_matter(tmp_path: Path) -> None:
    """Neither to what waits in the lane, nor to what finds no room there."""
    with side_graph(tmp_path, capacity=2).run() as running:
        until = time.monotonic() + 0.3
        for n in range(4):
            assert running.client.call("front.take", **letter(n), timeout_s=0.3) == n
        wait_until(lambda: time.monotonic() > until)
        assert not cancelled(running, "sides")
        (tmp_path / "gate").touch()
        wait_until(lambda: len(seen(tmp_path)) == 4)
        actors = [actor for worker in running.status()["workers"] for actor in worker["actors"]]
        assert not any(actor["expired"] or actor["dropped"] or actor["cancelled"] for actor in actors)


@pytest.mark.parametrize("where", ["near", "far"])
def test_a_call_that_runs_out_of_time_is_cancelled_everywhere(
    tmp_path: Path, running: slabwire.Running, where: str
) -> None:
    """And counted where something was dropped for it."""
    with slabwire.connect(running.name if where == "near" else str(gateway_of(running)["listen"][0])) as client:
        for n in (-1, -2):
            with pytest.raises(slabwire.DeadlineExceeded):
                client.call("front.take", **letter(n), timeout_s=0.2)
        assert client.call("front.take", **letter(3)) == 3
        wait_until(lambda: cancelled(running, "sides"))
        (tmp_path / "gate").touch()
        wait_until(lambda: seen(tmp_path) == [3])
        assert cancelled(running, "sides") == 2


def test_what_an_actor_was_answered_goes_on_when_it_dies(tmp_path: Path, running: slabwire.Running) -> None:
    """Its successor waits for none of its calls, and cancels only those that were not answered."""

    async def scene() -> None:
        async with slabwire.connect_async(running.name) as client:
            asking = [asyncio.create_task(client.call("asks.ask", n)) for n in (-1, *range(1, 11))]
            while len(list(tmp_path.glob("asked*"))) < 10:
                await asyncio.sleep(0.002)
            kill(running, "asks")
            while not cancelled(running, "sides"):
                await asyncio.sleep(0.002)
            (tmp_path / "gate").touch()
            while len(seen(tmp_path)) < 10:
                await asyncio.sleep(0.002)
            for each in asking:
                each.cancel()
            await asyncio.gather(*asking, return_exceptions=True)

    asyncio.run(scene())
    assert seen(tmp_path) == list(range(1, 11))


class Fails(Actor):
    def at_once(self, mark: str) -> None:
        raise ValueError(mark)


class Endless(Actor):
    def go(self, mark: str) -> Iterator[int]:
        try:
            n = 0
            while True:
                yield (n := n + 1)
        finally:
            Path(mark).touch()


def forks(mark: str) -> str:
    return mark


def test_a_stream_to_nobody_ends(tmp_path: Path) -> None:
    """Its call has ended with the error of another branch, so nobody will ever cancel it."""
    graph = Graph("nobody")
    fork, fails, endless = graph.add(forks), graph.add(Fails), graph.add(Endless)
    graph.connect(fork, fails)
    graph.connect(fork, endless)
    graph.expose(fork, reply=endless.go)
    with graph.run() as running:
        with slabwire.connect(running.name) as client, pytest.raises(slabwire.HandlerError):
            list(client.stream("forks.forks", str(tmp_path / "ended")))
        wait_until((tmp_path / "ended").exists)
        assert cancelled(running, "endless") == 1
