"""Many streams that were handed on: whoever is killed at whatever point, nothing is lost, doubled or out of order."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import pytest

import slabwire
from batch_stage import ITEMS, POINTS, Source, read_all
from points import Strikes
from slabwire import Actor, Graph, IncomingStream, ReplyStream
from waiting import wait_until, worker_of

KILL = int(signal.SIGKILL)
FEW, MANY = 60, 1_000
Strike = tuple[str, int]  # a point, and at which of its passes


@pytest.fixture(autouse=True)
def run_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(tmp_path / "run"))


class Struck(Actor):
    """May be killed again and again."""

    def __init__(self, strikes: str = "") -> None:
        self.strikes = strikes

    def on_start(self) -> None:
        if self.strikes:
            Strikes(Path(self.strikes)).arm()


class Front(Struck):
    """Hands each request on."""

    def numbers(self) -> ReplyStream[int]:
        return self._on("source.numbers")

    def once(self) -> ReplyStream[int]:
        return self._on("source.once")

    def _on(self, port: str) -> ReplyStream[int]:
        onward: ReplyStream[int] = self.delegate(port)
        return onward


class Reader(Struck):
    """Reads many streams at once. Its successor begins to read anew."""

    async def read(self, n: int) -> list[list[Any]]:
        seen = await read_all(self.streams(), "front.numbers", n)
        return [[*items, str(error or "")] for *items, error in seen.values()]


def run(folder: Path, n: int, victim: str, strikes: list[Strike], *, point: str = "", port: str = "numbers") -> None:
    """Opens so many streams while their victim is struck, and once more behind that: then all places are free."""
    planned = Strikes.plan(folder / "strikes", [(each, KILL, passes) for each, passes in strikes])
    told = {victim: str(planned.folder)}
    (folder / "marks").mkdir()
    graph = Graph("handed", client_calls=n)
    endless: dict[str, Any] = {"max_attempts": 100}
    front = graph.add(Front, strikes=told.get("front", ""), **endless)
    source = graph.add(Source, concurrency=n, folder=str(folder / "marks"), point=point, least=n)
    reader = graph.add(Reader, calls=n, strikes=told.get("reader", ""), **endless)
    graph.expose(front.numbers, front.once, source.numbers, reader.read)

    with graph.run() as running:
        if victim == "reader":
            for *items, error in running.client.call("reader.read", n, timeout_s=None):
                assert (items, error) == ([*range(ITEMS)], "")
        else:
            breaks = port == "once" and point != "when some streams have ended"  # all have sent their ends by then
            check(asyncio.run(read(running.name, f"front.{port}", n)), breaks=breaks)
        deaths = len(strikes) + bool(point)
        wait_until(lambda: planned.is_over() and worker_of(running, victim)["restarts"] == deaths)
        wait_until(lambda: is_idle(running))
        check(asyncio.run(read(running.name, "front.numbers", n)), breaks=False)
        wait_until(lambda: is_idle(running))


async def read(name: str, port: str, n: int) -> dict[IncomingStream, list[Any]]:
    async with slabwire.connect_async(name) as client:
        return await read_all(client.streams(), port, n)


def check(seen: dict[IncomingStream, list[Any]], *, breaks: bool) -> None:
    broken = 0
    for *items, error in seen.values():
        assert items == list(range(len(items)))
        assert len(items) == ITEMS or isinstance(error, slabwire.Interrupted)
        broken += error is not None
    assert bool(broken) == breaks


def is_idle(running: Any) -> bool:
    actors = [each for worker in running.status()["workers"] for each in worker["actors"]]
    return not any(each["in_flight"] or each["waiting"] or each["outbox"] for each in actors)


# -- who hands on ----------------------------------------------------------------------------------------------------

# Of two records that it sends for each request, the first hands it on, and the second tells its caller.
OF_FRONT: list[Strike] = [("written", 7), ("published", 7), ("published", 8)]


def test_who_hands_on_is_killed(tmp_path: Path) -> None:
    run(tmp_path, FEW, "front", OF_FRONT)


# One under load parks seldom.
POINTS_OF_FRONT = ["popped", "begun", "written", "published", "handled", "committed"]
ALL_OF_FRONT = [
    *((point, passes) for point in POINTS_OF_FRONT for passes in (1, 2, 101, 102)),
    ("parked", 1),
    ("waking", 1),
]


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("point", "passes"), ALL_OF_FRONT)
def test_who_hands_many_on_is_killed_at_a_point(tmp_path: Path, point: str, passes: int) -> None:
    run(tmp_path, MANY, "front", [(point, passes)] * 3)


# -- who answers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("point", "port"), [("when a batch is published", "numbers"), ("when some rows are noted", "once")]
)
def test_who_answers_is_killed(tmp_path: Path, point: str, port: str) -> None:
    run(tmp_path, FEW, "source", [], point=point, port=port)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("port", ["numbers", "once"])
@pytest.mark.parametrize("point", POINTS)
def test_who_answers_many_is_killed_at_a_point(tmp_path: Path, point: str, port: str) -> None:
    run(tmp_path, MANY, "source", [], point=point, port=port)


# -- who reads -------------------------------------------------------------------------------------------------------


def of_reader(n: int) -> dict[str, int]:
    """By point, a pass among the batches. Before those it is told of each request where it lies now."""
    return {"published": n // 2, "written": n // 2, "handled": n + 4, "committed": n + 4, "released": 4}


def test_who_reads_is_killed(tmp_path: Path) -> None:
    run(tmp_path, FEW, "reader", [(point, of_reader(FEW)[point]) for point in ("published", "handled")])


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("point", of_reader(MANY))
def test_who_reads_many_is_killed_at_a_point(tmp_path: Path, point: str) -> None:
    run(tmp_path, MANY, "reader", [(point, of_reader(MANY)[point])] * 3)
