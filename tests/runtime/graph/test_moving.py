"""Workers of a live graph go to other CPUs: with all their threads, without losing a message, and for good."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from slabwire import Actor, Graph
from slabwire.cli import root
from slabwire.runtime.clients.control import Control
from slabwire.runtime.control.verbs import Move
from slabwire.runtime.errors import UnknownPort
from slabwire.runtime.launch.running import Running
from slabwire.runtime.placement.moves import MoveError
from stage import SlowToStart
from waiting import wait_until, worker_of

pytestmark = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="moving takes two CPUs")
HERE, THERE = (*sorted(os.sched_getaffinity(0)), 0, 0)[:2]


class Threaded(Actor):
    """Has threads of its own, one of them on a CPU of its choice."""

    def on_start(self) -> None:
        self.end = threading.Event()
        self.threads = [threading.Thread(target=self.end.wait, daemon=True) for _ in range(2)]
        for each in self.threads:
            each.start()

    def cores(self) -> list[int]:
        return list(self.context.cores)

    def burn(self, seconds: float) -> int:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            pass
        return os.getpid()

    def hold(self, mark: str) -> int:
        """Until a file is there, and for a while beyond."""
        while not Path(mark).exists():
            time.sleep(0.002)
        return self.burn(0.06)

    def on_stop(self) -> None:
        self.end.set()


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    graph = Graph(f"moving-{os.getpid()}")
    one, two = graph.add(Threaded, name="one"), graph.add(Threaded, name="two")
    guest = graph.add(Threaded, name="guest", worker="two")
    many = graph.add(Threaded, name="many", replicas=2)
    graph.expose(one.cores, one.burn, two.cores, guest.hold, many.cores)
    with graph.run() as running:
        ports = {"one.cores": (), "one.burn": (0.0,), "two.cores": (), "guest.hold": ("/",), "many.cores": ()}
        for port, fields in ports.items():  # so that all lanes are there before
            running.client.call(port, *fields)
        yield running


def move(running: Running, actor: str, cpus: str) -> dict[str, Any]:
    with Control(running.name) as control:
        return control.request(Move(actor=actor, cpus=cpus))


def masks(pid: int) -> set[frozenset[int]]:
    """The CPUs that the threads of a process may run on, as the kernel says."""
    found = set()
    for each in Path(f"/proc/{pid}/task").iterdir():
        (line,) = (line for line in (each / "status").read_text().splitlines() if line.startswith("Cpus_allowed_list"))
        first, _, last = line.split()[1].partition("-")
        found.add(frozenset(range(int(first), int(last or first) + 1)))
    return found


def test_all_threads_move_and_the_actor_hears_of_it(running: Running) -> None:
    for target in (THERE, HERE):
        answer = move(running, "one", str(target))
        assert answer["to"] == [target]
        worker = worker_of(running, "one")
        assert (worker["cores"], masks(worker["pid"])) == ([target], {frozenset({target})})
        while running.client.call("one.cores") != [target]:
            pass
    assert worker_of(running, "one")["moves"] == 2


def test_a_move_in_the_middle_of_work_loses_nothing(running: Running) -> None:
    answers: list[int] = []

    def ask() -> None:
        answers.extend(running.client.call("one.burn", 0.001) for _ in range(100))

    caller = threading.Thread(target=ask)
    caller.start()
    moves = 0
    while caller.is_alive():
        move(running, "one", str((HERE, THERE)[moves % 2]))
        moves += 1
    caller.join()
    assert moves > 1
    assert answers == [worker_of(running, "one")["pid"]] * 100


def test_a_busy_worker_moves_without_being_asked(running: Running) -> None:
    move(running, "one", str(HERE))
    call = threading.Thread(target=lambda: running.client.call("one.burn", 0.3))
    call.start()
    wait_until(lambda: worker_of(running, "one")["actors"][0]["busy_for_s"])
    move(running, "one", str(THERE))
    worker = worker_of(running, "one")
    assert masks(worker["pid"]) == {frozenset({THERE})}
    call.join()


def test_a_successor_starts_on_the_new_cores(running: Running) -> None:
    move(running, "one", str(HERE))
    for target in (THERE, HERE):
        before = worker_of(running, "one")["pid"]
        os.kill(before, signal.SIGSTOP)  # so that it does not hear of it
        move(running, "one", str(target))
        os.kill(before, signal.SIGKILL)
        while worker_of(running, "one")["pid"] in (0, before):
            pass
        assert running.client.call("one.cores") == [target]
        assert masks(worker_of(running, "one")["pid"]) == {frozenset({target})}


def test_actors_of_one_worker_move_together(running: Running) -> None:
    assert move(running, "guest", str(THERE))["instances"] == ["two", "guest"]
    assert worker_of(running, "two")["cores"] == [THERE]


def test_who_waits_long_for_a_neighbour_of_its_worker_is_counted(running: Running, tmp_path: Path) -> None:
    def two() -> dict[str, Any]:
        found: dict[str, Any] = worker_of(running, "two")["actors"][0]
        return found

    before, mark = two(), tmp_path / "go"
    calls = [threading.Thread(target=running.client.call, args=("guest.hold", str(mark)))]
    calls[0].start()
    wait_until(lambda: worker_of(running, "two")["actors"][1]["busy_for_s"])
    calls.append(threading.Thread(target=running.client.call, args=("two.cores",)))
    calls[1].start()
    wait_until(lambda: two()["waiting"])
    mark.touch()
    for each in calls:
        each.join()
    assert two()["starved"] == before["starved"] + 1
    assert two()["longest_wait_s"] > 0.05


def test_a_worker_that_moves_while_it_starts(tmp_path: Path) -> None:
    graph = Graph(f"starting-{os.getpid()}")
    slow = graph.add(SlowToStart, name="slow", folder=str(tmp_path))
    graph.expose(slow.note)
    with graph.run() as running:
        (home,) = worker_of(running, "slow")["cores"]
        target = THERE if home == HERE else HERE
        os.kill(worker_of(running, "slow")["pid"], signal.SIGKILL)
        wait_until((tmp_path / "start-1").exists)
        move(running, "slow", str(target))
        (tmp_path / "go").touch()
        assert running.client.call("slow.note", 1) == 1
        worker = worker_of(running, "slow")
        assert (worker["cores"], masks(worker["pid"])) == ([target], {frozenset({target})})


def test_refusals(running: Running) -> None:
    with pytest.raises(MoveError, match="say which: many\\[0\\], many\\[1\\]"):
        move(running, "many", str(HERE))
    with pytest.raises(MoveError, match="CPU 8000 is not for this graph to use"):
        move(running, "one", "8000")
    with pytest.raises(UnknownPort, match="did you mean 'guest'"):
        move(running, "gest", str(HERE))


def test_the_command(running: Running) -> None:
    done = CliRunner().invoke(root, ["move", running.name, "two", str(HERE)])
    assert done.exit_code == 0
    assert done.stdout.startswith(f"moved two with all its actors (two, guest) from CPU {THERE} to {HERE}\n")
    row = next(line for line in done.stdout.splitlines() if line.startswith("two "))
    assert f"moved here from CPU {THERE}: shares core {HERE} with " in row
    done = CliRunner().invoke(root, ["move", running.name, "two", str(THERE), "--format", "json"])
    assert json.loads(done.stdout)["to"] == [THERE]
    done = CliRunner().invoke(root, ["plan", running.name, "--running"])
    assert f"moved here from CPU {HERE}" in done.stdout
    assert "Not pinned: the supervisor" in done.stdout
    before = worker_of(running, "two")
    assert CliRunner().invoke(root, ["move", running.name, "two", str(THERE)]).stdout == "two is there already\n"
    assert worker_of(running, "two")["moves"] == before["moves"]
    done = CliRunner().invoke(root, ["move", running.name, "two", "x"])
    assert done.exit_code == 1
    assert "'x' are no CPUs" in done.stderr
    assert CliRunner().invoke(root, ["move", "two"]).exit_code == 2


def test_two_busy_actors_on_one_core_are_spread_by_rebalancing() -> None:
    graph = Graph(f"rebalanced-{os.getpid()}")
    one, two = graph.add(Threaded, name="one"), graph.add(Threaded, name="two")
    graph.expose(one.burn, two.burn)
    with graph.run(rebalance=True) as running:
        assert running.status()["rebalance"] == {"moves": 0, "last": None}
        for name in ("one", "two"):
            move(running, name, str(HERE))
        is_over = threading.Event()

        def keep_busy(port: str) -> None:
            while not is_over.is_set():
                running.client.call(port, 0.05)

        callers = [threading.Thread(target=keep_busy, args=(f"{name}.burn",)) for name in ("one", "two")]
        for each in callers:
            each.start()
        wait_until(lambda: running.status()["rebalance"]["moves"])
        is_over.set()
        for each in callers:
            each.join()
        status = running.status()
        assert {tuple(each["cores"]) for each in status["workers"]} == {(HERE,), (THERE,)}
        last = status["rebalance"]["last"]
        assert (last["from"], last["to"]) == ([HERE], [THERE])
        assert last["reason"].startswith(f"core {HERE} was wanted ")
        moved = worker_of(running, last["worker"])
        assert moved["reason"] == f"moved here by rebalancing from CPU {HERE}: alone on core {THERE}"
        assert masks(moved["pid"]) == {frozenset({THERE})}
        assert "rebalancing: " in (running.directory / "logs" / "supervisor.log").read_text()
