"""The supervisor: starts that fail, hangs, restarts, drains, names that are taken."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import zmq

import slabwire
from slabwire import Graph
from slabwire.runtime.clients.control import Control
from slabwire.runtime.control.verbs import Restart, Status, StopGraph
from slabwire.runtime.host.frames import FrameReader
from slabwire.runtime.host.run_directory import list_graphs
from slabwire.runtime.host.sealed_document import pack_document, unpack_document
from slabwire.runtime.postmortem.report_store import reports
from slabwire.runtime.postmortem.stopped import UNCLEAN
from slabwire.runtime.supervision.supervisor import give_up
from slabwire.runtime.supervision.workforce import Workforce
from stage import Busy, Collects, Dies, Echo, Emits, FailsToStart, Hangs, Leaves, Restless, Waits
from waiting import wait_until, worker_of
from wrecks import Stalls


@pytest.fixture(autouse=True)
def run_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(tmp_path / "run"))
    return tmp_path / "run"


def echo_graph(name: str = "echoes") -> Graph:
    graph = Graph(name)
    graph.expose(graph.add(Echo).echo)
    return graph


def test_an_actor_that_fails_to_start_is_named() -> None:
    graph = Graph("broken")
    graph.add(FailsToStart, name="model")
    with pytest.raises(slabwire.StartError, match=r"model could not start: .*no licence for this model"), graph.run():
        pass
    assert list_graphs() == []


def test_a_start_that_never_ends_is_named(tmp_path: Path) -> None:
    (tmp_path / "stall").touch()
    graph = Graph("stalled")
    graph.add(Stalls, folder=str(tmp_path), start_timeout_s=0.5)
    late = r"stalls could not start: did not start within 0\.5 s \(start_timeout_s\) and was killed; `slabwire logs"
    with pytest.raises(slabwire.StartError, match=late), graph.run():
        pass
    assert "in on_start" in next(reports("stalled"))["stacks"]


def test_a_name_is_taken_once(run_directory: Path) -> None:
    with echo_graph().run():
        assert list_graphs() == ["echoes"]
        with (
            pytest.raises(slabwire.StartError, match=r"'echoes' is running already.*slabwire stop echoes"),
            echo_graph().run(),
        ):
            pass
        with echo_graph().run(name="other") as other:
            assert sorted(list_graphs()) == ["echoes", "other"]
            assert other.client.call("echo.echo", 1) == 1
    assert list_graphs() == []


def test_what_is_not_ours_is_never_removed(run_directory: Path) -> None:
    run_directory.mkdir(mode=0o700)
    precious = run_directory / "precious"
    precious.mkdir(mode=0o700)
    (precious / "data").write_text("mine")
    left = run_directory / "left"
    left.mkdir(mode=0o700)
    (left / "pid").write_text("slabwire supervisor 1\n")
    (precious / "pid").write_text("1\n")
    assert list_graphs() == []
    assert (precious / "data").read_text() == "mine"
    assert not left.exists()


def test_a_directory_that_others_may_enter_is_refused(run_directory: Path) -> None:
    run_directory.mkdir(mode=0o777)
    run_directory.chmod(0o777)
    with pytest.raises(slabwire.StartError, match="chmod 700"), echo_graph().run():
        pass


def test_a_hung_handler_is_reported_and_replaced(run_directory: Path) -> None:
    graph = Graph("hung")
    hangs = graph.add(Hangs, hang_after_s=0.3, max_attempts=1)
    graph.expose(hangs.loop, hangs.fine)
    with graph.run() as running:
        with pytest.raises(slabwire.DeadLetter):
            running.client.call("hangs.loop")
        assert running.client.call("hangs.fine") == "fine"
        (worker,) = running.status()["workers"]
        assert worker["last_exit"] == "hung and was killed"
        assert "in loop" in (run_directory / "hung" / "logs" / "hangs.log").read_text()


def test_a_graph_gives_up_when_an_actor_keeps_dying(tmp_path: Path) -> None:
    graph = Graph("hopeless")
    graph.expose(graph.add(Dies, folder=str(tmp_path), max_attempts=1000).plain)
    with graph.run() as running:
        with pytest.raises(slabwire.Disconnected, match="hopeless"):
            running.client.call("dies.plain", "x", 1000)
        assert running.wait() == 1
        died = r"^dies died 11 times within 30 s: killed by SIGKILL \(somebody killed it\)"
        assert re.search(died + "; `slabwire logs hopeless --crash` tells more$", running.failure or "")
    assert list_graphs() == []
    assert next(reports("hopeless"))["next"] == "the graph ends: dies died 11 times within 30 s"


def test_restart_takes_effect_while_idle() -> None:
    with echo_graph().run() as running, Control("echoes") as control:
        (before,) = running.status()["workers"]
        assert control.request(Restart(actor="echo")) == {"restarted": ["echo"]}
        wait_until(lambda: running.status()["workers"][0]["pid"] not in (0, before["pid"]))
        assert running.client.call("echo.echo", 1) == 1
        with pytest.raises(slabwire.UnknownPort, match="did you mean 'echo'"):
            control.request(Restart(actor="ecco"))


def call_for_ever(client: Any, target: str, value: int) -> None:
    while True:
        client.call(target, value)


def test_stopping_finishes_what_is_in_flight(tmp_path: Path) -> None:
    graph = Graph("drains")
    waits = graph.add(Waits)
    emits, collects = graph.add(Emits), graph.add(Collects, path=str(tmp_path / "seen"))
    graph.connect(emits.out, collects.take)
    graph.expose(waits.sleep, emits.go)
    answers: list[Any] = []
    with graph.run() as running, slabwire.connect("drains") as client:
        thread = threading.Thread(target=lambda: answers.append(client.call("waits.sleep", 0.5)))
        thread.start()
        wait_until(lambda: running.status()["workers"][0]["actors"][0]["in_flight"])
        running.client.call("emits.go", 1, times=200)
        with Control("drains") as control:
            control.request(StopGraph())
            wait_until(lambda: control.request(Status())["state"] == "draining")
        with pytest.raises((slabwire.Draining, slabwire.Disconnected)):
            call_for_ever(client, "emits.go", 2)  # until the worker has heard of it too
        thread.join()
        assert running.wait() == 0
    assert answers == [0.5]
    assert (tmp_path / "seen").read_text().split()[:200] == [str(100 + i) for i in range(200)]


def test_messages_wait_while_their_reader_is_away(tmp_path: Path, run_directory: Path) -> None:
    graph = Graph("away")
    emits, collects = graph.add(Emits), graph.add(Collects, path=str(tmp_path / "seen"), restart="temporary")
    graph.connect(emits.out, collects.take)
    graph.expose(emits.go)

    def edge() -> tuple[int, int]:
        (told,) = running.status()["edges"]
        return told["paused"], told["waiting"]

    with graph.run() as running, Control("away") as control, ThreadPoolExecutor(2) as pool:
        assert edge() == (0, 0)
        os.kill(worker_of(running, "collects")["pid"], signal.SIGKILL)
        wait_until(lambda: worker_of(running, "collects")["state"] == "stopped")
        first = pool.submit(running.client.call, "emits.go", 0, times=3)
        wait_until(lambda: edge() == (1, 3))
        control.request(Restart(actor="collects"))
        assert first.result() == 0
        wait_until(lambda: edge() == (0, 0))
        assert (tmp_path / "seen").read_text().split() == ["0", "1", "2"]
        os.kill(worker_of(running, "collects")["pid"], signal.SIGKILL)
        wait_until(lambda: worker_of(running, "collects")["state"] == "stopped")
        second = pool.submit(running.client.call, "emits.go", 1)
        wait_until(lambda: edge() == (1, 1))
        with open(run_directory / "away" / "logs" / "supervisor.log") as log:
            control.request(StopGraph())
            assert running.wait() == 0
            assert "cut off" not in log.read(), "waited for one who is not started again"
        assert isinstance(second.exception(), slabwire.Disconnected)


def test_asked_again_it_stops_at_once() -> None:
    graph = Graph("impatient")
    graph.expose(graph.add(Waits).sleep)
    with graph.run(drain_timeout_s=3600) as running, ThreadPoolExecutor(1) as pool:
        call = pool.submit(running.client.call, "waits.sleep", 3600.0, timeout_s=None)
        wait_until(lambda: running.status()["workers"][0]["actors"][0]["in_flight"])
        os.kill(running.pid, signal.SIGTERM)
        wait_until(lambda: running.status()["state"] == "draining")
        os.kill(running.pid, signal.SIGTERM)
        assert running.wait() == UNCLEAN
        assert isinstance(call.exception(), slabwire.Disconnected)


def test_actors_are_told_of_a_drain(tmp_path: Path) -> None:
    graph = Graph("leaving")
    graph.expose(graph.add(Leaves, path=str(tmp_path / "told")).linger)
    answers: list[str] = []
    with graph.run() as running:
        caller = threading.Thread(
            target=lambda client: answers.append(client.call("leaves.linger")), args=[running.client]
        )
        caller.start()
        wait_until((tmp_path / "told").exists)
        with Control(running.name) as control:
            control.request(StopGraph())
        caller.join()
    assert answers == ["drained"]


def test_a_task_that_never_waits_does_not_hide_the_lanes() -> None:
    graph = Graph("restless")
    graph.expose(graph.add(Restless, hang_after_s=2).seen)
    with graph.run() as running:
        for _ in range(20):  # the status takes longer than a worker ever spins
            assert worker_of(running, "restless")["restarts"] == 0
            assert running.client.call("restless.seen", 1, timeout_s=60)[0] == 1


def test_a_task_that_never_waits_is_not_taken_for_one_that_hangs() -> None:
    graph = Graph("busy")
    graph.expose(graph.add(Busy, hang_after_s=1).work)
    with graph.run() as running:
        assert running.client.call("busy.work", 3.0) == 3.0
        assert worker_of(running, "busy")["restarts"] == 0


def test_orders_are_heard_while_a_task_never_waits(tmp_path: Path) -> None:
    graph = Graph("orders")
    graph.expose(graph.add(Busy).until_drained)
    with graph.run() as running, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(running.client.call, "busy.until_drained", str(tmp_path / "busy"))
        wait_until((tmp_path / "busy").exists)
        with Control(running.name) as control:
            control.request(StopGraph())
        assert answer.result() == "drained"


def test_an_embedded_graph_in_asyncio() -> None:
    async def serve() -> None:
        async with echo_graph().run() as running:
            assert await running.client.call("echo.echo", 5) == 5
            assert (await running.status())["state"] == "ready"

    asyncio.run(serve())
    assert list_graphs() == []


def test_several_graphs_at_once_in_one_process() -> None:
    with echo_graph("one").run() as one, echo_graph("two").run() as two:
        assert one.client.call("echo.echo", 1) + two.client.call("echo.echo", 2) == 3


def test_closures_and_lambdas_travel() -> None:
    offset = 41
    graph = Graph("closures")
    graph.expose(graph.add(lambda x: x + offset, name="plus"))
    with graph.run() as running:
        assert running.client.call("plus.apply", 1) == 42


def test_what_the_machine_refuses_the_supervisor_is_told_in_words() -> None:
    near, far = socket.socketpair()
    with near, far:
        assert give_up(near, OSError(errno.EMFILE, os.strerror(errno.EMFILE))) == 1
        told = FrameReader(far).read()
    assert (told["event"], told["code"]) == ("failed", slabwire.StartError.code)
    assert "Too many open files; raise the limit where the program is started (`ulimit -n 4096`;" in told["error"]


def test_a_graph_gives_up_whatever_becomes_of_the_report() -> None:
    def compose(_worker: object, _next_step: str) -> None:
        raise ValueError("a word that nobody has thought of")

    given_up: list[str] = []
    here: Any = SimpleNamespace(
        _crashes=SimpleNamespace(compose=compose, keep=None),
        _graph="g",
        _give_up=lambda reason, _detail: given_up.append(reason),
    )
    with pytest.raises(ValueError, match="nobody has thought of"):
        Workforce._give_up_on(here, SimpleNamespace(detail=""), "one died 11 times")  # type: ignore[arg-type]
    assert given_up == ["one died 11 times; `slabwire logs g --crash` tells more"]


@pytest.mark.parametrize(
    "asked", [{"verb": "nonsense"}, {"verb": "move", "actor": 7, "cpus": [[["1"]]]}, {"verb": "move"}, 7]
)
def test_what_is_no_verb_is_refused_in_words(asked: object) -> None:
    with echo_graph().run() as running:
        answer = said_to(running, b"somebody", asked)
        assert (answer["ok"], answer["code"]) == (False, slabwire.ProtocolError.code)
        assert running.client.call("echo.echo", 1) == 1


@pytest.mark.parametrize("report", [{"report": "nonsense"}, {"report": "dead", "actor": 7}, {"pid": 1}, {"report": []}])
def test_a_report_that_nobody_knows_holds_up_nobody(report: dict[str, Any]) -> None:
    with echo_graph().run() as running:
        said_to(running, b"w:elsewhere", *[report] * 3, {"report": "ready", "pid": 1}, waits=False)
        assert said_to(running, b"somebody", {"verb": "hello"})["result"]["graph"] == "echoes"
        log = running.directory / "logs" / "supervisor.log"
        wait_until(lambda: log.read_text().count("a report of elsewhere is not understood") == 3)
        assert running.client.call("echo.echo", 1) == 1


def said_to(running: Any, name: bytes, *words: object, waits: bool = True) -> Any:
    """Says words to the control socket under a name; the answer to the last of them."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as connection:
        connection.setsockopt(zmq.IDENTITY, name)
        connection.connect(f"ipc://{running.directory}/control")
        for word in words:
            connection.send(pack_document(word))
        if not waits:
            return None
        assert connection.poll(20_000)
        return unpack_document(connection.recv())
