"""Batches of items of many streams: whoever is killed at whatever point, nothing is lost, doubled or out of order."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import slabwire
from slabwire import Actor, Graph, IncomingStream, ReplyStream, resumable
from slabwire.runtime.cell import outlets
from slabwire.runtime.cell.outlets import Outlets
from slabwire.shm.inflight import Inflight
from slabwire.shm.producer import Producer

STREAMS = 1_000
ITEMS = 12

# Where the source is killed: the method that marks the point, at which of its calls, and before, after or amid it.
POINTS: dict[str, tuple[type, str, int, str]] = {
    "before a batch is written": (Outlets, "publish_batch", 5, "before"),
    "when a batch is written": (Producer, "publish", 0, "before"),
    "when a batch is published": (Producer, "publish", 0, "after"),
    "when no row is noted": (Inflight, "sent_all", 5, "before"),
    "when some rows are noted": (Inflight, "sent_all", 5, "amid"),
    "when all rows are noted": (Inflight, "sent_all", 5, "after"),
    "after a batch": (Outlets, "publish_batch", 5, "after"),
    "when some streams have ended": (Inflight, "clear", 400, "after"),
}


class Source(Actor):
    """Sends each of its streams the numbers from 0 on, a step for all of them, and is killed once."""

    least = STREAMS

    def __init__(self, folder: str, point: str) -> None:
        self.folder = Path(folder)
        self.point = point
        self.open: list[ReplyStream[int]] = []

    async def on_start(self) -> None:
        self.attempt = len(list(self.folder.glob("begun-*")))
        (self.folder / f"begun-{self.attempt}").touch()
        if self.attempt == 0 and self.point:
            arm(self.point)
        self.task = asyncio.create_task(self._run())

    @resumable
    def numbers(self, sent: int = 0) -> ReplyStream[int]:
        return self._begun(sent)

    def once(self) -> ReplyStream[int]:
        return self._begun(0)

    def _begun(self, sent: int) -> ReplyStream[int]:
        stream: ReplyStream[int] = self.reply_stream()
        stream.tag = sent
        self.open.append(stream)
        return stream

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(0.01)
            self.open = [each for each in self.open if each.is_open]
            if self.attempt == 0 and len(self.open) < self.least:
                continue  # all of them begin together
            going = [each for each in self.open if each.tag < ITEMS]
            self.publish([(each, each.tag) for each in going], ended=[each for each in self.open if each.tag >= ITEMS])
            for each in going:
                each.tag += 1


def arm(point: str) -> None:
    """Lets this process kill itself at the point."""
    owner, name, wanted, when = POINTS[point]
    calls = 0
    whole: Callable[..., Any] = getattr(owner, name)

    def struck(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == wanted and when == "amid":
            whole(args[0], args[1][:300])
        if calls == wanted and when != "after":
            os.kill(os.getpid(), signal.SIGKILL)
        result = whole(*args, **kwargs)
        if calls == wanted and when == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    if owner is Producer:  # inside the fifth batch
        inside: Callable[..., Any] = vars(outlets)["publish_batch"]
        batches = 0

        def batch(*args: Any) -> Any:
            nonlocal batches, wanted
            batches += 1
            if batches == 5:
                wanted = calls + 1
            return inside(*args)

        vars(outlets)["publish_batch"] = batch
    setattr(owner, name, struck)


def graph_of(folder: Path, point: str) -> Graph:
    graph = Graph("killed", client_calls=STREAMS)
    source = graph.add(Source, concurrency=STREAMS, folder=str(folder), point=point)
    graph.expose(source.numbers, source.once)
    return graph


class DiesTwice(Source):
    """Its second process makes records and blocks that overwrite those of the first, and dies."""

    least = 3

    async def on_start(self) -> None:
        await super().on_start()
        if self.attempt == 1:
            loans = [self.loan((1 << 14,), np.uint8) for _ in range(200)]
            for each in loans:
                each[:] = 255
            self.kill = asyncio.get_running_loop().call_later(0.5, os.kill, os.getpid(), signal.SIGKILL)
            self.task.cancel()


async def read_all(client: slabwire.AsyncClient, port: str, n: int = STREAMS) -> dict[IncomingStream, list[Any]]:
    """Of each stream its items and, at the end, its error or None."""
    group = client.streams()
    seen: dict[IncomingStream, list[Any]] = {group.begin(port): [] for _ in range(n)}
    while len(group):
        stream, items = await anext(group)
        seen[stream] += items
        if stream.is_over:
            seen[stream].append(stream.error)
    return seen


@pytest.mark.parametrize("point", POINTS)
def test_resumable_streams_go_on_without_a_gap_and_without_a_double(
    point: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(tmp_path / "run"))
    (tmp_path / "marks").mkdir()

    async def main() -> dict[IncomingStream, list[Any]]:
        async with graph_of(tmp_path / "marks", point).run() as running, slabwire.connect_async(running.name) as client:
            return await read_all(client, "source.numbers")

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
            point="when no row is noted",
        )  # fmt: skip
        graph.expose(source.numbers)
        async with graph.run() as running, slabwire.connect_async(running.name) as client:
            return await read_all(client, "source.numbers", 3)

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
            return await read_all(client, "source.once")

    for *items, error in asyncio.run(main()).values():
        assert isinstance(error, slabwire.Interrupted)
        assert items == list(range(5))


def test_a_killed_reader_frees_all_places_of_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(tmp_path / "run"))

    async def main() -> None:
        graph = Graph("orphans", client_calls=STREAMS)
        source = graph.add(Source, concurrency=STREAMS, folder=str(tmp_path), point="")
        reader = graph.add(Reader, calls=STREAMS)
        graph.expose(source.numbers, reader.begin, reader.die)
        async with graph.run() as running, slabwire.connect_async(running.name) as client:
            assert await client.call("reader.begin", STREAMS - 1) == STREAMS - 1
            with pytest.raises(slabwire.SlabwireError):
                await client.call("reader.die", retries=0)
            seen = await read_all(client, "source.numbers")
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
