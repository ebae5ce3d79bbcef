"""Death as the normal path: workers, clients and supervisors are killed, and their successors take over."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import slabwire
from lanes import lanes_of
from slabwire import Graph
from slabwire.runtime.clients.control import Control
from slabwire.runtime.control.verbs import DeadLetters
from slabwire.runtime.host.run_directory import list_graphs
from stage import Collects, Dies, DiesAfterEmit, Echo, Emits, Passes, Streams, Waits
from waiting import wait_until, worker_of
from wrecks import Wrecks


@pytest.fixture(autouse=True)
def run_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(tmp_path / "run"))


def dying(folder: Path) -> Graph:
    graph = Graph("dying")
    dies = graph.add(Dies, folder=str(folder))
    echo = graph.add(Echo)
    graph.expose(dies.plain, dies.coroutine, dies.yields, dies.resumes, dies.keeps, echo.echo)
    return graph


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Any]:
    with dying(tmp_path).run() as running:
        yield running.client


@pytest.mark.parametrize("port", ["dies.plain", "dies.coroutine"])
def test_a_message_survives_its_process(client: Any, port: str) -> None:
    assert client.call(port, "one", 0) == 1
    assert client.call(port, "two", 1) == 2
    assert client.call(port, "three", 2) == 3


@pytest.mark.parametrize("port", ["dies.plain", "dies.coroutine"])
def test_a_message_that_kills_each_time_becomes_a_dead_letter(tmp_path: Path, port: str) -> None:
    with dying(tmp_path).run() as running:
        with pytest.raises(slabwire.DeadLetter, match="died 3 times"):
            running.client.call(port, "always", 99)
        assert running.client.call(port, "fine", 0) == 1
        with Control("dying") as control:
            (letter,) = wait_until(lambda: control.request(DeadLetters())["dead"])
        assert letter["actor"] == "dies"
        assert "died 3 times" in letter["reason"]


def test_a_partly_sent_stream_is_interrupted(client: Any) -> None:
    items = client.stream("dies.yields", "s", 1, 4)
    assert [next(items) for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(slabwire.Interrupted, match="dies died in the middle"):
        next(items)


def test_a_stream_of_which_nothing_was_sent_starts_again(client: Any) -> None:
    assert list(client.stream("dies.yields", "s", 1, 0)) == list(range(10))


def test_a_resumable_stream_goes_on_behind_what_was_sent(client: Any) -> None:
    assert list(client.stream("dies.resumes", "r", 1, 4)) == list(range(10))


def test_neighbours_wait_through_a_death(client: Any) -> None:
    answers: list[int] = []
    threads = [
        threading.Thread(target=lambda i=i: answers.append(client.call("dies.plain", f"n{i}", 1 if i == 3 else 0)))
        for i in range(8)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sorted(answers)[:6] == [1] * 6
    assert len(answers) == 8


def test_leases_of_the_dead_come_back(tmp_path: Path) -> None:
    """The client's blocks that a dead actor kept are free again: the pool stops growing."""
    with dying(tmp_path).run() as running:
        client = running.client
        for i in range(30):
            client.call("dies.keeps", np.full(1_000_000, float(i)))
        pool = lanes_of(client).endpoint.pool
        held = pool.used_nbytes
        assert held >= 30 * 8_000_000
        pid = worker_of(running, "dies")["pid"]
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: worker_of(running, "dies")["pid"] not in (0, pid))
        client.call("dies.keeps", np.zeros(1_000_000))
        lanes_of(client).endpoint.reap()
        assert pool.used_nbytes < held / 10


def test_an_output_already_sent_is_not_sent_twice(tmp_path: Path) -> None:
    graph = Graph("once")
    emits, collects = graph.add(DiesAfterEmit, folder=str(tmp_path)), graph.add(Collects, path=str(tmp_path / "seen"))
    graph.connect(emits.out, collects.take)
    graph.expose(emits.go)
    with graph.run() as running:
        assert [running.client.call("diesafteremit.go", n) for n in range(5)] == list(range(5))
        wait_until(lambda: worker_of(running, "diesafteremit")["actors"][0]["redelivered"] >= 5)
    assert (tmp_path / "seen").read_text().split() == ["0", "1", "2", "3", "4"]


def chain(folder: Path) -> Graph:
    graph = Graph("chain")
    first, second, third = (graph.add(Passes, name=name) for name in ("first", "second", "third"))
    echo, waits = graph.add(Echo), graph.add(Waits)
    graph.add(Streams)
    graph.connect(first.on, second.on)
    graph.connect(second.on, third.on)
    graph.expose(first.on, waits.many, waits.total, echo.echo)
    return graph


def ready_pid(running: Any, name: str, predecessor: int | None) -> int:
    """The process of a worker once it is ready, if it is not the one that was killed."""
    while True:
        worker = worker_of(running, name)
        if worker["state"] == "ready" and worker["pid"] != predecessor:
            return int(worker["pid"])
        time.sleep(0.005)


def call_while_killing(running: Any, victims: list[str], rounds: int, call: Callable[[int], None], seed: int) -> int:
    """Makes calls in one thread while actors are killed at random; returns how many calls were answered."""
    moments = random.Random(seed)
    done = threading.Event()
    failures: list[BaseException] = []
    answered = 0

    def work() -> None:
        nonlocal answered
        while not done.is_set():
            try:
                call(answered)
            except BaseException as error:
                failures.append(error)
                return
            answered += 1

    thread = threading.Thread(target=work)
    thread.start()
    killed: dict[str, int] = {}
    for _ in range(rounds):
        name = moments.choice(victims)
        before = answered
        killed[name] = ready_pid(running, name, killed.get(name))
        enough = before + moments.randrange(20)
        while answered <= enough and not failures:
            time.sleep(0.005)
        os.kill(killed[name], signal.SIGKILL)
    done.set()
    thread.join()
    assert failures == []
    return answered


def test_kills_under_load_lose_and_tear_nothing(tmp_path: Path) -> None:
    with chain(tmp_path).run() as running:
        client = running.client

        def call(i: int) -> None:
            sent = np.full(20_000 + i % 7, i, np.int64)
            assert np.array_equal(client.call("first.on", sent, timeout_s=None), sent)

        call_while_killing(running, ["first", "second", "third"], 8, call, seed=1)


def test_callers_and_callees_may_die_under_load(tmp_path: Path) -> None:
    with chain(tmp_path).run() as running:

        def call(i: int) -> None:
            assert running.client.call("waits.many", 20, timeout_s=None) == list(range(20))

        call_while_killing(running, ["waits", "echo"], 6, call, seed=2)


def test_a_dead_client_leaves_nothing_in_the_graph(tmp_path: Path) -> None:
    with dying(tmp_path).run() as running:
        script = (
            "import slabwire, sys, numpy as np, os, signal\n"
            "c = slabwire.connect('dying')\n"
            "c.call('dies.keeps', np.zeros(100_000))\n"
            "items = c.stream('dies.yields', 'x', 0, 0); next(items)\n"
            "os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        before = running.status()
        for _ in range(3):
            ended = subprocess.run([sys.executable, "-c", script], check=False)
            assert ended.returncode == -signal.SIGKILL
        wait_until(lambda: running.status()["clients"] == before["clients"])
        wait_until(lambda: running.status()["memory_bytes"] <= before["memory_bytes"] + (4 << 20))
        assert running.client.call("echo.echo", 1) == 1


def test_a_killed_supervisor_takes_the_graph_with_it(tmp_path: Path) -> None:
    running = dying(tmp_path).run().__enter__()
    pids = [each["pid"] for each in running.status()["workers"]]
    client = slabwire.connect("dying")
    assert client.call("echo.echo", 1) == 1
    os.kill(running.pid, signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() and _lives(pid) for pid in pids))
    with pytest.raises(slabwire.Disconnected):
        client.call("echo.echo", 2)
    client.close()
    running.stop()
    assert list_graphs() == []
    assert not (tmp_path / "run" / "dying").exists()


def test_ten_busy_workers_and_their_children_die_with_the_supervisor(tmp_path: Path) -> None:
    graph = Graph("busy")
    nodes = [graph.add(Wrecks, name=f"busy{number}") for number in range(10)]
    graph.expose(*(port for node in nodes for port in (node.loop, node.fork)))
    running = graph.run().__enter__()
    with ThreadPoolExecutor(10) as pool, slabwire.connect("busy") as client:
        children = [client.call(f"busy{number}.fork") for number in range(10)]
        calls = [pool.submit(client.call, f"busy{number}.loop") for number in range(10)]
        workers = running.status()["workers"]
        wait_until(lambda: all(each["actors"][0]["busy_for_s"] > 0 for each in running.status()["workers"]))
        os.kill(running.pid, signal.SIGKILL)
        wait_until(lambda: not any(map(_lives, [*children, *(each["pid"] for each in workers)])))
        assert all(isinstance(each.exception(), slabwire.Disconnected) for each in calls)
    running.stop()  # that no memory is left is looked for after each test


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_a_killed_embedder_drains_its_graph(tmp_path: Path) -> None:
    script = tmp_path / "embedder.py"
    script.write_text(
        "import os, signal, sys\n"
        "from stage import Echo\n"
        "import slabwire\n"
        "graph = slabwire.Graph('embedded')\n"
        "graph.expose(graph.add(Echo).echo)\n"
        "if __name__ == '__main__':\n"
        "    with graph.run() as running:\n"
        "        print(running.pid, *(each['pid'] for each in running.status()['workers']), flush=True)\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, script], stdout=subprocess.PIPE, text=True, check=False)
    pids = [int(word) for word in ended.stdout.split()]
    assert len(pids) == 2
    wait_until(lambda: not any(_lives(pid) for pid in pids))
    assert list_graphs() == []


def test_a_stopped_worker_is_killed_and_replaced(tmp_path: Path) -> None:
    graph = Graph("frozen")
    graph.expose(graph.add(Echo, hang_after_s=0.5).who)
    with graph.run() as running:
        pid = worker_of(running, "echo")["pid"]
        threading.Timer(0.0, os.kill, (pid, signal.SIGSTOP)).start()
        wait_until(lambda: running.client.call("echo.who", timeout_s=None)[1] != pid)
        assert worker_of(running, "echo")["restarts"] == 1


def test_a_worker_that_is_stopped_in_its_sleep_is_replaced(tmp_path: Path) -> None:
    """A coroutine of it is waiting, so that it sleeps for good reason as far as its words tell."""
    graph = Graph("asleep")
    waits = graph.add(Waits, hang_after_s=0.5)
    graph.expose(waits.sleep)
    with graph.run() as running, ThreadPoolExecutor(1) as pool:
        pid = worker_of(running, "waits")["pid"]
        call = pool.submit(running.client.call, "waits.sleep", 0.2, timeout_s=None)
        wait_until(lambda: worker_of(running, "waits")["actors"][0]["in_flight"])
        os.kill(pid, signal.SIGSTOP)
        assert call.result() == 0.2
        assert worker_of(running, "waits")["restarts"] == 1


def test_emits_of_one_input_survive(tmp_path: Path) -> None:
    graph = Graph("emits")
    emits, collects = graph.add(Emits), graph.add(Collects, path=str(tmp_path / "seen"))
    graph.connect(emits.out, collects.take, capacity=4)
    graph.expose(emits.go)
    with graph.run() as running:
        assert running.client.call("emits.go", 1, times=50) == 100
        wait_until(lambda: (tmp_path / "seen").read_text().count("\n") == 50)
    assert (tmp_path / "seen").read_text().split() == [str(100 + i) for i in range(50)]


def test_a_client_that_scribbles_over_its_lanes_harms_only_itself(tmp_path: Path) -> None:
    with dying(tmp_path).run() as running, slabwire.Client("dying") as client:
        assert client.call("echo.echo", 1) == 1
        pid = worker_of(running, "echo")["pid"]
        entry = lanes_of(client).caller._entries["echo"]
        entry._words[entry._head_word] = 1 << 40
        entry.consumer.ring_always()
        reply = lanes_of(client).caller.replies[0]
        reply._words[reply._tail_word] = 1 << 50
        assert running.client.call("echo.echo", 2) == 2
        log = tmp_path / "run" / "dying" / "logs" / "echo.log"
        wait_until(lambda: "is not heard any more" in log.read_text())
        assert running.client.call("echo.echo", 3) == 3
        assert worker_of(running, "echo")["pid"] == pid
        del entry, reply  # a client is known as long as somebody holds a lane of its
