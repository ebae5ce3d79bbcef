"""What a caller lets go of is let go of at once, not when the garbage collector next comes by."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import slabwire
from lanes import lanes_of
from slabwire import Graph
from slabwire.runtime.control.channel import ASKS, Ask
from stage import Echo, Streams
from waiting import wait_until

NBYTES = 100_000


@pytest.fixture(autouse=True)
def run_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(tmp_path / "run"))


@pytest.fixture
def running() -> Iterator[Any]:
    graph = Graph("lets-go")
    echo, streams = graph.add(Echo), graph.add(Streams)
    graph.expose(echo.fail, echo.echo, streams.frames, streams.breaks)
    with graph.run() as running:
        gc.disable()
        yield running
        gc.enable()


class Held:
    """Something in a caller's frame."""


def _fails(client: Any, port: str) -> weakref.ref[Held]:
    held = Held()
    try:
        if port == "echo.fail":
            client.call(port, "text")
        else:
            list(client.stream(port, 3))
    except slabwire.SlabwireError:
        return weakref.ref(held)
    raise AssertionError("it did not fail")


@pytest.mark.parametrize("port", ["echo.fail", "streams.breaks"])
def test_an_error_keeps_no_frame_of_its_caller(running: Any, port: str) -> None:
    assert _fails(running.client, port)() is None


async def _fails_async(client: Any, port: str) -> weakref.ref[Held]:
    held = Held()
    try:
        if port == "echo.fail":
            await client.call(port, "text")
        else:
            _ = [item async for item in client.stream(port, 3)]
    except slabwire.SlabwireError:
        return weakref.ref(held)
    raise AssertionError("it did not fail")


@pytest.mark.parametrize("port", ["echo.fail", "streams.breaks"])
def test_an_error_keeps_no_frame_of_its_asyncio_caller(running: Any, port: str) -> None:
    async def talk() -> bool:
        async with slabwire.connect_async("lets-go") as client:
            held = await _fails_async(client, port)
            return held() is None

    assert asyncio.run(talk())


def test_a_client_that_was_told_errors_is_gone_when_it_is_closed(running: Any) -> None:
    before = running.status()["clients"]
    with slabwire.connect("lets-go") as client:
        _fails(client, "echo.fail")
        _fails(client, "streams.breaks")
        assert running.status()["clients"] == before + 1
    wait_until(lambda: running.status()["clients"] == before)


def test_an_item_is_its_readers_alone(running: Any) -> None:
    """The iterator keeps none of what it has handed out."""
    items = running.client.stream("streams.frames", 3, NBYTES)
    base: Any = next(items).base
    lease = weakref.ref(base.lease)
    del base
    assert lease() is None
    items.close()


@pytest.mark.parametrize("moment", ["before the answer", "behind it"])
def test_memory_that_came_while_a_call_was_interrupted_is_used(running: Any, moment: str) -> None:
    client = running.client
    endpoint = lanes_of(client).endpoint
    ask = endpoint.ask

    def interrupted(question: Ask) -> None:
        endpoint.ask = ask
        if moment == "before the answer":
            lanes_of(client).link.channel.send(ASKS.document(question, token=0))
        else:
            ask(question)
        raise KeyboardInterrupt

    client.call("echo.echo", 1)
    endpoint.ask = interrupted
    with pytest.raises(KeyboardInterrupt):
        client.call("echo.echo", bytes(NBYTES))
    client.call("echo.echo", bytes(2 * NBYTES))  # of another size, for which a slab must come
    held = [len(client.call("echo.echo", bytes(NBYTES))) for _ in range(3)]
    assert held == [NBYTES] * 3
    own = {number for number, slab in endpoint._readers.items() if slab.segment.writable}
    assert set(endpoint.pool.slabs) == own  # what the supervisor counts, the pool knows
    assert len(endpoint.pool.slabs) == 2
