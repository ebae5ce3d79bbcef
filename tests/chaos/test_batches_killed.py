"""Batches of items of many streams: whoever is killed at whatever point, nothing is lost, doubled or out of order."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import slabwire
from batch_stage import ITEMS, POINTS, Source, read_all
from slabwire import Actor, Graph, IncomingStream

STREAMS = 1_000


def graph_of(folder: Path, point: str) -> Graph:
    graph = Graph("killed", client_calls=STREAMS)
    source = graph.add(Source, concurrency=STREAMS, folder=str(folder), point=point, least=STREAMS)
    graph.expose(source.numbers, source.once)
    return graph


class DiesTwice(Source):
    """Its second process makes records and blocks that overwrite those of the first, and dies."""

    async def on_start(self) -> None:
        await super().on_start()
        if self.attempt == 1:
            loans = [self.loan((1 << 14,), np.uint8) for _ in range(200)]
            for each in loans:
                each[:] = 255
            self.kill = asyncio.get_running_loop().call_later(0.5, os.kill, os.getpid(), signal.SIGKILL)
            self.task.cancel()


@pytest.mark.parametrize("point", POINTS)
def test_resumable_streams_go_on_without_a_gap_and_without_a_double(
    point: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(tmp_path / "run"))
    (tmp_path / "marks").mkdir()

    async def main() -> dict[IncomingStream, list[Any]]:
        async with graph_of(tmp_path / "marks", point).run() as running, slabwire.connect_async(running.name) as client:
            return await read_all(client.streams(), "source.numbers", STREAMS)

    seen = asyncio.run(main())
    assert len(list((tmp_path / "marks").glob("begun-*"))) == 2, "the source was not killed"
    assert len(seen) == STREAMS
    assert all(items == [*range(ITEMS), None] for items in seen.values())


def test_a_second_death_forgets_nothing_of_what_the_first_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second process is killed after it has used memory anew, and before it has sent an item."""
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(tmp_path / "run"))
    (tmp_path / "marks").mkdir()

    async def main() -> dict[IncomingStream, list[Any]]:
        graph = Graph("twice", client_calls=STREAMS)
        source = graph.add(
            DiesTwice, name="source", concurrency=STREAMS, max_attempts=9, folder=str(tmp_path / "marks"),
            point="when no row is noted", least=3,
        )  # fmt: skip
        graph.expose(source.numbers)
        async with graph.run() as running, slabwire.connect_async(running.name) as client:
            return await read_all(client.streams(), "source.numbers", 3)

    for items in asyncio.run(main()).values():
        assert items == [*range(ITEMS), None]
    assert len(list((tmp_path / "marks").glob("begun-*"))) == 3


def test_streams_that_cannot_go_on_are_interrupted_behind_what_was_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(tmp_path / "run"))
    (tmp_path / "marks").mkdir()

    async def main() -> dict[IncomingStream, list[Any]]:
        graph = graph_of(tmp_path / "marks", "when some rows are noted")
        async with graph.run() as running, slabwire.connect_async(running.name) as client:
            return await read_all(client.streams(), "source.once", STREAMS)

    for *items, error in asyncio.run(main()).values():
        assert isinstance(error, slabwire.Interrupted)
        assert items == list(range(5))


def test_a_killed_reader_frees_all_places_of_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(tmp_path / "run"))

    async def main() -> None:
        graph = Graph("orphans", client_calls=STREAMS)
        source = graph.add(Source, concurrency=STREAMS, folder=str(tmp_path), point="", least=STREAMS)
        reader = graph.add(Reader, calls=STREAMS)
        graph.expose(source.numbers, reader.begin, reader.die)
        async with graph.run() as running, slabwire.connect_async(running.name) as client:
            assert await client.call("reader.begin", STREAMS - 1) == STREAMS - 1
            with pytest.raises(slabwire.SlabwireError):
                await client.call("reader.die", retries=0)
            seen = await read_all(client.streams(), "source.numbers", STREAMS)
            assert all(items == [*range(ITEMS), None] for items in seen.values())

    asyncio.run(main())


class Reader(Actor):
    """Holds streams open."""

    async def begin(self, n: int) -> int:
        self.group = self.streams(lambda stream, items: None)
        for _ in range(n):
            self.group.begin("source.numbers")
        return len(self.group)

    def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)
