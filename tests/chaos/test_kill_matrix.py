"""The kill matrix on a graph: workers die or stand still at each named point, while messages pass by the thousand.

Nothing is lost, nothing torn, nothing sent twice; an input that is handled again says so.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import slabwire
from kill_stage import SIZES, Forwards, Sink, Streams, bare_letter, checksum, letter, read_bare
from points import POINTS, Strikes
from slabwire import Graph
from slabwire.shm.block import METADATA_NBYTES, size_class
from waiting import wait_until, worker_of

KILL, STOP = int(signal.SIGKILL), int(signal.SIGSTOP)
IN_FLIGHT = 24
# At which pass of its point a process is struck. One that is under load parks seldom.
PASSES = {"parked": 2, "waking": 2}
MANY_PASSES = 90
LARGEST_BLOCK_NBYTES = size_class(max(SIZES) + METADATA_NBYTES)


@pytest.fixture(autouse=True)
def run_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(tmp_path / "run"))


def strikes_of(folder: Path, points: list[str], signals: list[int]) -> Strikes:
    planned = [(point, sign, PASSES.get(point, MANY_PASSES)) for point in points for sign in signals]
    return Strikes.plan(folder, planned)


def fan(folder: Path, victim: str, port: str) -> Graph:
    """A forwarder before two sinks, the first of which answers; single arrays go to that one alone."""
    told = {victim: str(folder / "strikes")}
    graph = Graph("matrix")
    settings: dict[str, Any] = {"max_attempts": 100, "hang_after_s": 0.5}
    forwards = graph.add(Forwards, strikes=told.get("forwards", ""), **settings)
    sinks = [
        graph.add(Sink, name=name, path=str(folder / name), strikes=told.get(name, ""), **settings)
        for name in sinks_of(port)
    ]
    takes = [sink.take_bare if port == "bare" else sink.take for sink in sinks]
    for take in takes:
        graph.connect(getattr(forwards, port), take, capacity=8)
    graph.expose(getattr(forwards, port), reply=takes[0])
    return graph


def sinks_of(port: str) -> list[str]:
    return ["first"] if port == "bare" else ["first", "second"]


async def send_until(name: str, port: str, at_least: int, strikes: Strikes, sinks: list[Path]) -> int:
    """Sends letters in bursts until all strikes have come; returns how many came back, each whole and its own.

    The client leaves before all sinks have all: what its answered calls have set going comes there nevertheless.
    """
    number = 0
    async with slabwire.connect_async(name) as client:

        async def send(number: int) -> None:
            if port.endswith("bare"):
                assert read_bare(await client.call(port, bare_letter(number), timeout_s=None)) == (number, True)
                return
            sent = letter(number)
            fields = {"letters": sent} if port.endswith("batch") else sent
            back = await client.call(port, timeout_s=None, **fields)
            assert (back["n"], back["check"]) == (number, checksum(number, back["x"])) == (number, sent["check"])

        while number < at_least or not strikes.is_over():
            await asyncio.gather(*(send(each) for each in range(number, number + IN_FLIGHT)))
            number += IN_FLIGHT
    for sink in sinks:
        await asyncio.to_thread(_wait_for_all, sink, number)
    return number


@contextmanager
def let_go_on(running: Any, victim: str, strikes: Strikes) -> Iterator[None]:
    """Lets a process that has stopped itself go on."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.002):
            pid = worker_of(running, victim)["pid"]
            if pid and _is_stopped(pid):
                os.kill(pid, signal.SIGCONT)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _is_stopped(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except OSError:
        return False


def _wait_for_all(path: Path, sent: int) -> None:
    """For ever, if one was lost."""
    wait_until(lambda: {int(line.split()[0]) for line in path.read_text().splitlines()} == set(range(sent)))


def check_seen(path: Path, sent: int, *, again: bool) -> int:
    """Holds a sink's notes against what was sent; returns how many letters it handled again."""
    notes = [tuple(map(int, line.split())) for line in path.read_text().splitlines()]
    assert {number for number, _, _ in notes} == set(range(sent)), "letters were lost"
    assert all(whole for _, whole, _ in notes), "letters were torn"
    firsts = Counter(number for number, _, attempt in notes if attempt == 1)
    assert max(firsts.values()) == 1, f"sent twice: {[number for number, times in firsts.items() if times > 1]}"
    repeated = [number for number, times in Counter(number for number, _, _ in notes).items() if times > 1]
    assert again or not repeated
    return len(repeated)


def run_matrix(tmp_path: Path, victim: str, port: str, strikes: Strikes, at_least: int, *, go_on: bool) -> None:
    with fan(tmp_path, victim, port).run() as running:
        with let_go_on(running, victim, strikes) if go_on else _nothing():
            sinks = [tmp_path / name for name in sinks_of(port)]
            sent = asyncio.run(send_until("matrix", f"forwards.{port}", at_least, strikes, sinks))
        status = wait_until(lambda: _when_idle(running))
        for name in sinks_of(port):
            check_seen(tmp_path / name, sent, again=name == victim)
        deaths = sum(1 for _, sign, _ in strikes.planned() if sign == KILL or not go_on)
        wait_until(lambda: worker_of(running, victim)["restarts"] == deaths)
        # A sender looks for blocks that came back when it needs some: those of two bursts may be out.
        assert max(each["slab_used_bytes"] for each in status["workers"]) <= 2 * IN_FLIGHT * LARGEST_BLOCK_NBYTES


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def _when_idle(running: Any) -> dict[str, Any] | None:
    status: dict[str, Any] = running.status()
    # An input counts as waiting until all its outputs have left, so whoever comes first in the graph is read first.
    actors = [actor for each in status["workers"] for actor in each["actors"]]
    idle = all(actor["in_flight"] == actor["waiting"] == 0 for actor in actors)
    idle = idle and all(edge["waiting"] == 0 for edge in status["edges"])
    return status if idle and status["clients"] <= 1 else None


ALL = list(POINTS)
VICTIMS = [("forwards", "plain"), ("forwards", "bare"), ("forwards", "coroutine"), ("first", "plain")]


def points_of(victim: str, points: list[str]) -> list[str]:
    """A sink makes no blocks of its own, and the second one sends nothing: its answers go to nobody."""
    passed_by = {"first": {"loaned"}, "second": {"loaned", "written", "published", "forwarded"}}
    return [each for each in points if each not in passed_by.get(victim, set())]


@pytest.mark.parametrize("points", [ALL[::2], ALL[1::2]], ids=["some", "others"])
@pytest.mark.parametrize(("victim", "port"), VICTIMS)
def test_a_worker_is_struck_at_each_point(tmp_path: Path, victim: str, port: str, points: list[str]) -> None:
    strikes = strikes_of(tmp_path / "strikes", points_of(victim, points), [STOP, KILL])
    run_matrix(tmp_path, victim, port, strikes, 200, go_on=True)


def test_a_worker_that_stands_still_is_replaced(tmp_path: Path) -> None:
    strikes = strikes_of(tmp_path / "strikes", ["written", "handled"], [STOP])
    run_matrix(tmp_path, "forwards", "plain", strikes, 200, go_on=False)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("point", ALL)
@pytest.mark.parametrize(
    ("victim", "port"), [*VICTIMS, ("forwards", "batch"), ("second", "plain"), ("first", "batch"), ("first", "bare")]
)
def test_a_worker_is_struck_at_a_point_again_and_again(tmp_path: Path, victim: str, port: str, point: str) -> None:
    if point not in points_of(victim, ALL):
        pytest.skip("no such point in this actor")
    for sign, go_on in ((KILL, True), (STOP, True), (STOP, False)):
        folder = tmp_path / f"{sign}-{go_on}"
        folder.mkdir()
        strikes = strikes_of(folder / "strikes", [point] * 5, [sign])
        run_matrix(folder, victim, port, strikes, 3000, go_on=go_on)


def streaming(folder: Path, victim: str, port: str) -> Graph:
    graph = Graph("matrix")
    told = {victim: str(folder / "strikes")}
    settings: dict[str, Any] = {"max_attempts": 100, "hang_after_s": 0.5}
    streams = graph.add(Streams, strikes=told.get("streams", ""), **settings)
    sink = graph.add(Sink, name="sink", path=str(folder / "sink"), strikes=told.get("sink", ""), **settings)
    graph.connect(getattr(streams, port), sink.take, capacity=8)
    graph.expose(getattr(streams, port))
    return graph


def run_streams(tmp_path: Path, victim: str, port: str, strikes: Strikes, length: int) -> None:
    """Reads streams of letters until all strikes have come: each is whole and in order, or is said to have broken."""
    with streaming(tmp_path, victim, port).run() as running, let_go_on(running, victim, strikes):
        first = 0
        while first == 0 or not strikes.is_over():
            got: list[int] = []
            broken = False
            try:
                for item in running.client.stream(f"streams.{port}", first, length, timeout_s=None):
                    assert checksum(item["n"], item["x"]) == item["check"]
                    got.append(item["n"])
            except slabwire.Interrupted:
                broken = True
            assert got == list(range(first, first + length))[: len(got)]
            assert len(got) == length or broken
            assert not (broken and (port != "once" or victim == "sink"))
            first += length
        wait_until(lambda: _when_idle(running))
    notes = [tuple(map(int, line.split())) for line in (tmp_path / "sink").read_text().splitlines()]
    assert all(whole for _, whole, _ in notes)
    firsts = Counter(number for number, _, attempt in notes if attempt == 1)
    assert set(firsts.values()) == {1}
    assert port == "once" or set(firsts) | {number for number, _, _ in notes} == set(range(first))


@pytest.mark.parametrize(("victim", "port"), [("streams", "again"), ("streams", "once"), ("sink", "slowly")])
def test_streams_are_struck(tmp_path: Path, victim: str, port: str) -> None:
    passes = {"written": 50, "published": 90, "begun": 2, "committed": 3}
    if victim == "sink":
        passes = {"popped": 50, "handled": 90, "released": 70}
    strikes = Strikes.plan(tmp_path / "strikes", [(point, KILL, at) for point, at in passes.items()])
    run_streams(tmp_path, victim, port, strikes, 120)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("sign", [KILL, STOP])
@pytest.mark.parametrize("point", ALL)
@pytest.mark.parametrize("port", ["once", "again", "slowly"])
@pytest.mark.parametrize("victim", ["streams", "sink"])
def test_streams_are_struck_at_a_point(tmp_path: Path, victim: str, port: str, point: str, sign: int) -> None:
    if point in ("released", "forwarded") or (point, victim) == ("loaned", "sink"):
        pytest.skip("no such point in this actor")
    passes = {"popped": 1, "begun": 1, "handled": 1, "committed": 1, "parked": 1, "waking": 1}
    wanted = passes.get(point, 777) if victim == "streams" else PASSES.get(point, 777)
    strikes = Strikes.plan(tmp_path / "strikes", [(point, sign, wanted + number) for number in range(4)])
    run_streams(tmp_path, victim, port, strikes, 2000)
