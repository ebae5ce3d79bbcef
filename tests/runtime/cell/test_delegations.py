"""A handler hands its request on: who has it last answers the caller, whoever dies on the way."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import slabwire
from delegate_stage import Back, chain
from lanes import lanes_of
from points import Strikes
from slabwire import Actor, Graph, MessageError, TooManyHops, UnknownPort
from slabwire.runtime.clients.control import Control
from slabwire.runtime.control.verbs import OpenGateway
from slabwire.runtime.message.delegated import MOST_HOPS, ReportTo, with_hops
from slabwire.runtime.message.header import Flag, Kind
from slabwire.runtime.message.payload import Payload
from waiting import wait_until, worker_of

KILL = int(signal.SIGKILL)


@pytest.fixture(autouse=True)
def run_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(tmp_path / "run"))


def notes(folder: Path, name: str) -> list[str]:
    path = folder / name
    return path.read_text().splitlines() if path.exists() else []


def sign(running: Any, name: str, number: int) -> None:
    os.kill(worker_of(running, name)["pid"], number)


@pytest.fixture(params=["processes", "one process"])
def running(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    with chain(tmp_path).run(in_process=request.param == "one process") as running:
        yield running


# -- in both forms of a graph ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("port", ["plain", "waits"])
def test_the_last_of_three_answers_with_what_the_others_have_added(running: Any, tmp_path: Path, port: str) -> None:
    for n in range(3):
        answer = running.client.call(f"front.{port}", n, timeout_s=60.0)
        assert (answer["n"], answer["path"]) == (n, ["front", "middle"])
        assert 0 < answer["left"] <= 60.0, "the deadline went along"
    assert notes(tmp_path, "front") == notes(tmp_path, "middle") == notes(tmp_path, "back") == ["0 1", "1 1", "2 1"]


def test_arrays_go_along_and_come_back(running: Any) -> None:
    for size in (8, 5000):
        x = np.random.default_rng(size).integers(0, 256, size, np.uint8)
        answer = running.client.call("front.plain", n=1, x=x)
        assert answer["sum"] == int(x.sum())
        assert np.array_equal(answer["x"], x)


def test_a_batch_hands_on_item_by_item(tmp_path: Path) -> None:
    with chain(tmp_path).run() as running, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: running.client.call("front.batch", n), [0, 1, 2, 3] * 5))
    assert [each if isinstance(each, str) else len(each) for each in answers] == ["nothing", 1, 2, 3] * 5


def test_an_actor_that_calls_gets_the_answer_too(running: Any) -> None:
    assert running.client.call("asks.ask", "front.plain", 7)["path"] == ["front", "middle"]


def test_a_request_is_handed_on_eight_times_and_not_nine(running: Any) -> None:
    assert running.client.call("front.some", MOST_HOPS) == "done"
    with pytest.raises(TooManyHops, match="handed on 8 times already"):
        running.client.call("front.some", MOST_HOPS + 1)
    with pytest.raises(TooManyHops, match="in a circle"):
        running.client.call("front.loop")


def told(running: Any, folder: Path, reports: int = 1) -> list[str]:
    """The lines of so many reports. A graph that its caller drives works while the caller waits."""

    def all_of_them() -> list[str]:
        running.client.call("front.loop", -1)
        lines = notes(folder, "reports")
        return lines if len(lines) == reports else []

    found: list[str] = wait_until(all_of_them)
    return found


def test_a_report_says_what_came_of_it(running: Any, tmp_path: Path) -> None:
    with pytest.raises(slabwire.HandlerError):
        running.client.call("front.told_of", "fails", 5)
    running.client.call("front.told_of", "large", 5)
    running.client.call("front.told_of", "large", 1 << 20)
    assert told(running, tmp_path, 3) == [
        "5 front not kept handler",
        "5 front [0 0 0 0 0]",
        f"{1 << 20} front not kept None",
    ]


def test_each_delegator_that_asked_is_told(running: Any, tmp_path: Path) -> None:
    answer = running.client.call("front.told_twice", 3)
    assert sorted(told(running, tmp_path, 2)) == [f"3 front {answer}", f"3 middle {answer}"]


def test_an_answer_over_the_bound_is_not_kept(running: Any, tmp_path: Path) -> None:
    running.client.call("front.told", 3, nbytes=20)
    running.client.call("front.told", 4)
    first, second = told(running, tmp_path, 2)
    assert first == "3 front not kept None"
    assert second.startswith("4 front {'n': 4")


@pytest.mark.parametrize("port", ["batched", "generated"])
def test_a_stream_is_handed_on_and_reported(tmp_path: Path, port: str) -> None:
    """It is longer than the window by which it may run ahead."""
    with chain(tmp_path).run() as running:
        for n in (3, 300):
            assert list(running.client.stream("front.items", n, port)) == list(range(n))
        assert list(running.client.stream("front.items", 301, port, nbytes=300)) == list(range(301))
        assert told(running, tmp_path, 3) == [
            f"3 front {list(range(3))}",
            f"300 front {list(range(300))}",
            "301 front not kept None",
        ]


def test_who_has_begun_a_stream_does_not_hand_it_on(running: Any) -> None:
    items = running.client.stream("front.torn", 3)
    assert next(items) == 3
    with pytest.raises(slabwire.HandlerError, match="before it has one"):
        next(items)


class Wrong(Actor):
    """Hands on what cannot be handed on."""

    def port(self, target: str, report: str | None = None, nbytes: Any = 10) -> Any:
        return self.delegate(target, n=1, report=report, report_nbytes=nbytes)

    def items(self, n: int) -> Iterator[int]:
        yield from range(n)

    def passes(self, n: int) -> int:
        return n

    def hears(self, about: Any, report: int) -> None: ...

    def told(self, about: Any, report: dict[str, Any]) -> None: ...


def test_what_cannot_be_handed_on_is_refused_by_name() -> None:
    graph = Graph("wrong")
    wrong = graph.add(Wrong)
    graph.connect(wrong.passes, graph.add(Back, folder="/").gate)
    for port in (wrong.port, wrong.items):
        graph.expose(port)
    wrongs: list[tuple[str, dict[str, Any], type[Exception], str]] = [
        ("wrong.items", {}, MessageError, "wrong.port answers with one value and wrong.items with a stream"),
        ("wrong.itmes", {}, UnknownPort, "did you mean"),
        ("wrong.port", {}, MessageError, "there is no field 'n'"),
        ("back.large", {"report": "hears"}, MessageError, "wrong.hears: field 'report'"),
        ("back.large", {"report": "passes"}, MessageError, "wrong.passes: there is no field 'about'"),
        ("back.large", {"report": "none"}, UnknownPort, "wrong.none"),
        ("back.large", {"report": "hears", "nbytes": -1}, MessageError, "report_nbytes is -1"),
        ("wrong.passes", {"report": "told"}, MessageError, "another port answers: it can give no report"),
    ]
    with graph.run(in_process=True) as running:
        for target, given, error, match in wrongs:
            with pytest.raises(error, match=match):
                running.client.call("wrong.port", target, **given)


class Edge(Actor):
    """Gets its inputs along an edge."""

    def take(self, n: int) -> Any:
        return self.delegate("back.large", n=n)


def test_what_came_along_an_edge_is_not_handed_on(tmp_path: Path) -> None:
    graph = Graph("edges")
    asks, edge = graph.add(lambda n: n, name="asks"), graph.add(Edge)
    graph.add(Back, folder=str(tmp_path))
    graph.connect(asks, edge.take)
    graph.expose(asks)
    with graph.run(in_process=True) as running, pytest.raises(MessageError, match="it came along an edge"):
        running.client.call("asks.apply", 3)


# -- cancels ---------------------------------------------------------------------------------------------------------


async def _cancel_at_the_gate(running: Any, folder: Path, before: Any = lambda: None) -> None:
    async with slabwire.connect_async(running.name) as client:
        call = asyncio.create_task(client.call("front.to_gate", 1, timeout_s=None))
        await asyncio.to_thread(wait_until, lambda: notes(folder, "back"))
        await asyncio.to_thread(before)
        call.cancel()
        await asyncio.to_thread(wait_until, lambda: notes(folder, "cancelled"))


def test_a_cancel_ends_the_work_where_it_is(tmp_path: Path) -> None:
    with chain(tmp_path).run() as running:
        asyncio.run(_cancel_at_the_gate(running, tmp_path))
        with pytest.raises(slabwire.DeadlineExceeded):
            running.client.call("front.to_gate", 2, timeout_s=0.3)
        wait_until(lambda: "2" in notes(tmp_path, "cancelled"))


@pytest.mark.parametrize("where", ["near", "far"])
def test_a_stream_that_is_left_ends_where_it_is(tmp_path: Path, where: str) -> None:
    with chain(tmp_path).run(listen="tcp://127.0.0.1:*") as running:
        with Control(running.name) as control:
            address = str(control.request(OpenGateway())["listen"][0])
        with slabwire.connect(running.name if where == "near" else address) as client:
            items = client.stream("front.items", 7, "endless")
            assert [next(items) for _ in range(100)] == [7] * 100
            items.close()
            assert wait_until(lambda: notes(tmp_path, "cancelled")) == ["7"]
            assert list(client.stream("front.items", 5)) == list(range(5))
        reports = wait_until(lambda: len(notes(tmp_path, "reports")) == 2 and notes(tmp_path, "reports"))
    assert reports == ["7 front not kept cancelled", f"5 front {list(range(5))}"]


def test_a_stream_whose_actor_dies_is_interrupted(tmp_path: Path) -> None:
    with chain(tmp_path).run() as running:
        items = running.client.stream("front.items", 7, "endless")
        next(items)
        sign(running, "front", KILL)
        assert next(items) == 7
        sign(running, "back", KILL)
        with pytest.raises(slabwire.Interrupted):
            list(items)
        wait_until(lambda: notes(tmp_path, "reports") == ["7 front not kept interrupted"])


def test_a_cancel_is_reported(tmp_path: Path) -> None:
    with chain(tmp_path).run() as running:
        with pytest.raises(slabwire.DeadlineExceeded):
            running.client.call("front.told_of", "gate", 2, timeout_s=0.3)
        assert told(running, tmp_path) == ["2 front not kept cancelled"]


def test_a_cancel_finds_its_way_past_a_delegator_that_stands_still(tmp_path: Path) -> None:
    with chain(tmp_path).run() as running:
        asyncio.run(_cancel_at_the_gate(running, tmp_path, lambda: sign(running, "front", signal.SIGSTOP)))
        sign(running, "front", signal.SIGCONT)


@pytest.mark.parametrize("passes", [1, 2])
def test_a_cancel_finds_its_way_past_a_delegator_that_was_killed(tmp_path: Path, passes: int) -> None:
    """Right behind the hand-on, before its caller is told, and right behind that."""
    strikes = Strikes.plan(tmp_path / "strikes", [("published", KILL, passes)])
    with chain(tmp_path, "front").run() as running:

        def is_replaced() -> None:
            wait_until(lambda: strikes.is_over() and worker_of(running, "front")["restarts"] == 1)

        asyncio.run(_cancel_at_the_gate(running, tmp_path, is_replaced))
    assert notes(tmp_path, "front") == notes(tmp_path, "cancelled") == ["1"]
    assert notes(tmp_path, "back") == ["1 1"]


@pytest.mark.parametrize("stands_still", [False, True])
def test_a_cancel_follows_that_was_sent_before_its_caller_knew(tmp_path: Path, stands_still: bool) -> None:
    """By the delegator, and by the caller once it hears of the place."""
    with chain(tmp_path).run() as running, slabwire.connect(running.name) as client:
        caller = lanes_of(client).caller
        pending = caller.begin(caller.checked("front.to_gate", (1,), {}, stream=False))
        wait_until(lambda: notes(tmp_path, "back") and caller.has_news())
        if stands_still:
            sign(running, "front", signal.SIGSTOP)
        caller.cancel(pending)
        if stands_still:
            assert not notes(tmp_path, "cancelled")
            lanes_of(client).take_in()
        wait_until(lambda: notes(tmp_path, "cancelled"))
        if stands_still:
            sign(running, "front", signal.SIGCONT)


def test_the_work_of_a_client_that_was_killed_ends(tmp_path: Path) -> None:
    with chain(tmp_path).run() as running:
        code = f"import slabwire; slabwire.connect({running.name!r}).call('front.to_gate', 1, timeout_s=None)"
        with subprocess.Popen([sys.executable, "-c", code]) as client:
            wait_until(lambda: notes(tmp_path, "back"))
            client.kill()
        wait_until(lambda: notes(tmp_path, "cancelled"))
        assert running.client.call("front.plain", 2)["n"] == 2


def test_a_caller_that_was_answered_cancels_nothing(tmp_path: Path) -> None:
    with chain(tmp_path).run() as running, slabwire.connect(running.name) as client:
        for n in range(50):
            assert client.call("front.straight", n)["n"] == n
        moved = lanes_of(client).caller._moved
        assert not (moved.places)
        assert not (moved.unsent)
        assert not (moved._cancelled)


# -- deaths ----------------------------------------------------------------------------------------------------------

# At which pass of its point the first hop is struck, and how often its handler runs in all.
STRIKES = [
    ("plain", "written", 1, 2),
    ("plain", "published", 1, 1),
    ("plain", "written", 2, 1),
    ("plain", "handled", 1, 1),
    ("plain", "committed", 1, 1),
    ("waits", "written", 1, 2),
    ("waits", "published", 1, 1),
    ("waits", "published", 2, 1),
    ("waits", "handled", 2, 1),
]


@pytest.mark.parametrize(("port", "point", "passes", "runs"), STRIKES)
def test_a_delegator_may_die_anywhere(tmp_path: Path, port: str, point: str, passes: int, runs: int) -> None:
    strikes = Strikes.plan(tmp_path / "strikes", [(point, KILL, passes)])
    with chain(tmp_path, "front").run() as running:
        for n in range(3):
            assert running.client.call(f"front.{port}", n, timeout_s=None)["path"] == ["front", "middle"]
        wait_until(lambda: strikes.is_over() and worker_of(running, "front")["restarts"] == 1)
        wait_until(lambda: not any(each["waiting"] for each in worker_of(running, "front")["actors"]))
    assert notes(tmp_path, "middle") == notes(tmp_path, "back") == ["0 1", "1 1", "2 1"]
    assert len([line for line in notes(tmp_path, "front") if line.startswith("0 ")]) == runs


def test_the_successor_of_the_last_one_answers(tmp_path: Path) -> None:
    with chain(tmp_path).run() as running:
        assert running.client.call("front.to_death", 1) == 1
        assert notes(tmp_path, "back") == ["1 1", "1 2"]
        (tmp_path / "dies").touch()
        with pytest.raises(slabwire.DeadLetter, match="back died"):
            running.client.call("front.to_death", 2)


def test_both_may_die(tmp_path: Path) -> None:
    strikes = Strikes.plan(tmp_path / "strikes", [("published", KILL, 1)])
    with chain(tmp_path, "front").run() as running, ThreadPoolExecutor(1) as pool:
        call = pool.submit(running.client.call, "front.to_gate", 1, timeout_s=None)
        wait_until(lambda: strikes.is_over() and notes(tmp_path, "back"))
        sign(running, "back", KILL)
        wait_until(lambda: notes(tmp_path, "back") == ["1 1", "1 2"])
        (tmp_path / "gate").touch()
        assert call.result() == 1
    assert notes(tmp_path, "front") == ["1"]


def test_a_report_comes_once_though_who_sends_it_dies(tmp_path: Path) -> None:
    """Right behind the answer (what its successor answers is not what the caller got), and right behind the report."""
    for passes, told in ((1, "not kept None"), (2, "{'n': 1")):
        folder = tmp_path / str(passes)
        folder.mkdir()
        strikes = Strikes.plan(folder / "strikes", [("published", KILL, passes)])
        with chain(folder, "back").run() as running:
            assert running.client.call("front.told", 1)["n"] == 1
            wait_until(lambda: strikes.is_over() and worker_of(running, "back")["restarts"] == 1)  # noqa: B023
            assert running.client.call("front.told", 2)["n"] == 2
            reports = wait_until(lambda: len(notes(folder, "reports")) >= 2 and notes(folder, "reports"))  # noqa: B023
        assert [line.startswith(f"1 front {told}") for line in reports] == [True, False]


# -- many ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("routing", ["least_loaded", "round_robin", "hash:n"])
def test_replicas_share_what_is_handed_on(tmp_path: Path, routing: str) -> None:
    graph = Graph("replicas")
    graph.expose(graph.add(Many, replicas=2).on)
    graph.add(Few, name="few", replicas=3, routing=routing)
    with graph.run() as running, ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda n: running.client.call("many.on", n), range(200)))
        assert [n for n, _ in answers] == list(range(200))
        assert {by for _, by in answers} == {"few[0]", "few[1]", "few[2]"}
        if routing == "hash:n":
            again = list(pool.map(lambda n: running.client.call("many.on", n), range(200)))
            assert again == answers


class Many(Actor):
    """Hands on by the thousand."""

    def on(self, n: int) -> Any:
        return self.delegate("few.on", n=n)


class Few(Actor):
    """Says who has it."""

    def on(self, n: int) -> tuple[int, str]:
        return n, self.context.actor


def test_what_finds_no_room_waits_until_its_deadline(tmp_path: Path) -> None:
    # Else the supervisor takes the stopped one for hung, and restarts it, where filling its lane takes long.
    graph = chain(tmp_path, back={"hang_after_s": 600.0})
    with graph.run() as running, slabwire.connect(running.name) as client:
        assert client.call("front.straight", 0)["n"] == 0
        sign(running, "back", signal.SIGSTOP)
        caller = lanes_of(client).caller
        request = caller.checked("front.straight", (1,), {}, stream=False)
        while not worker_of(running, "front")["actors"][0]["outbox"]:
            pending = caller.begin(request)
            wait_until(lambda: not worker_of(running, "front")["actors"][0]["waiting"] or _is_full(running))
            caller.cancel(pending)
            caller.pump()
        with pytest.raises(slabwire.DeadlineExceeded):
            client.call("front.straight", 2, timeout_s=0.5)
        sign(running, "back", signal.SIGCONT)
        assert client.call("front.straight", 3)["n"] == 3
    assert "2 1" not in notes(tmp_path, "back")


def _is_full(running: Any) -> bool:
    return bool(worker_of(running, "front")["actors"][0]["outbox"])


def test_a_client_can_neither_hand_on_nor_ask_for_reports(tmp_path: Path) -> None:
    with chain(tmp_path).run() as running, slabwire.connect(running.name) as client:
        lanes = lanes_of(client)
        pending = lanes.caller.begin(lanes.caller.checked("back.gate", (1,), {}, stream=False))
        reports = [ReportTo(lanes.routing.route("front.answered", inside=False), 0, {"n": 1, "by": "client"}, 100)]
        payload = Payload(with_hops({"n": 1}, 0, reports), lanes.endpoint.pool, is_fields=True)
        lanes.caller._write(pending, Kind.DATA, payload, 0, Flag.DELEGATED)  # type: ignore[arg-type]
        wait_until(lambda: lanes.caller.pump() or pending.arrived)
        with pytest.raises(MessageError, match="a client hands nothing on"):
            pending.result()
        (tmp_path / "gate").touch()
        assert client.call("front.plain", 2)["n"] == 2
    assert not notes(tmp_path, "reports")


# -- from afar -------------------------------------------------------------------------------------------------------


def test_a_remote_client_is_answered_and_may_cancel(tmp_path: Path) -> None:
    with chain(tmp_path).run(listen="tcp://127.0.0.1:*") as running:
        with Control(running.name) as control:
            address = str(control.request(OpenGateway())["listen"][0])
        with slabwire.connect(address) as client:
            answer = client.call("front.plain", 1, idempotency_key="order 7")
            assert (answer["path"], answer["key"]) == (["front", "middle"], "order 7")
            with pytest.raises(slabwire.DeadlineExceeded):
                client.call("front.to_gate", 2, timeout_s=0.3)
            wait_until(lambda: notes(tmp_path, "cancelled"))
