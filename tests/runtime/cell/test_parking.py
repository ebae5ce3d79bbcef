"""Nobody falls asleep over blocks that others wait for."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import numpy as np
import pytest

import slabwire
from kill_stage import StandsStill
from slabwire import Graph
from stage import Streams
from waiting import wait_until, worker_of

# Blocks of one edge that may be out at a time.
LENT = 64


@pytest.fixture(autouse=True)
def run_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(tmp_path / "run"))


def _state(pid: int) -> str:
    """R for running, S for asleep, T for stopped."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_forwarder_that_falls_asleep_hears_of_blocks_that_come_back(tmp_path: Path) -> None:
    """They come back after it has looked for them, and before it has said that it sleeps."""
    graph = Graph("asleep")
    streams, passes = graph.add(Streams), graph.add(StandsStill, name="passes", folder=str(tmp_path))
    graph.connect(streams.frames, passes.on, capacity=8)
    graph.expose(streams.frames)
    graph.expose(passes.ping)
    with graph.run() as running:
        items = running.client.stream("streams.frames", 2 * LENT, 1000)
        kept = [next(items) for _ in range(LENT)]
        wait_until(lambda: worker_of(running, "streams")["actors"][0]["outbox"])
        pid = worker_of(running, "passes")["pid"]
        assert running.client.call("passes.ping") == "here"
        wait_until(lambda: _state(pid) == "S")  # so that it is the next sleep that it is stopped at
        (tmp_path / "still").touch()
        assert running.client.call("passes.ping") == "here"
        wait_until(lambda: _state(pid) == "T")
        kept.clear()
        os.kill(pid, signal.SIGCONT)
        assert [int(each[0]) for each in items] == [i % 251 for i in range(LENT, 2 * LENT)]


class Sums(slabwire.Actor):
    def total(self, x: np.ndarray) -> int:
        return int(x.sum())


# More than a lane can lend at a time.
ITEMS = 700


def passing_on() -> Graph:
    graph = Graph("passing")
    graph.expose(graph.add(Streams).frames, graph.add(Sums).total)
    return graph


def test_a_client_may_pass_on_what_it_gets_for_ever() -> None:
    with passing_on().run() as running:
        client = running.client
        totals = [client.call("sums.total", item) for item in client.stream("streams.frames", ITEMS, 1000)]
    assert totals == [i % 251 * 1000 for i in range(ITEMS)]


async def _pass_on(name: str) -> list[int]:
    async with slabwire.connect_async(name) as client:
        return [await client.call("sums.total", item) async for item in client.stream("streams.frames", ITEMS, 1000)]


def test_an_asyncio_client_may_too() -> None:
    with passing_on().run():
        assert asyncio.run(_pass_on("passing")) == [i % 251 * 1000 for i in range(ITEMS)]
