"""What clients do whatever they are connected by: shared memory or ZeroMQ, threads or asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

import slabwire
from slabwire import Graph
from slabwire.runtime.errors import ClientClosed
from zero_copy import zero_copy_thread  # noqa: F401 - a fixture


def upto(n: int) -> Iterator[int]:
    yield from range(n)


@pytest.fixture(scope="module")
def addresses() -> Iterator[dict[str, str]]:
    graph = Graph("one-client")
    graph.expose(graph.add(upto))
    with graph.run(listen="tcp://127.0.0.1:0") as running:
        yield {"local": running.name, "remote": running.status()["gateway"]["listen"][0]}


FORMS = pytest.mark.parametrize("form", ["local", "remote"])
WRONG: list[tuple[str, tuple[Any, ...], dict[str, Any], type[slabwire.SlabwireError]]] = [
    ("upto.up", (1,), {}, slabwire.UnknownPort),
    ("upto.upto", ("1",), {}, slabwire.MessageError),
    ("upto.upto", (1,), {"timeout_s": "1"}, slabwire.MessageError),
    ("upto.upto", (1,), {"retries": -1}, slabwire.MessageError),
    ("upto.upto", (1,), {"idempotency_key": ""}, slabwire.MessageError),
]


@FORMS
def test_a_stream_says_at_once_what_is_wrong(addresses: dict[str, str], form: str) -> None:
    with slabwire.connect(addresses[form]) as client:
        assert type(client) is slabwire.Client
        for target, args, how, error in WRONG:
            with pytest.raises(error):
                client.stream(target, *args, **how)
    with pytest.raises(ClientClosed, match="is closed"):
        client.stream("upto.upto", 1)

    async def main() -> None:
        async with slabwire.connect_async(addresses[form]) as client:
            assert type(client) is slabwire.AsyncClient
            for target, args, how, error in WRONG:
                with pytest.raises(error):
                    client.stream(target, *args, **how)
        with pytest.raises(ClientClosed, match="is not open"):
            client.stream("upto.upto", 1)

    asyncio.run(main())


@FORMS
def test_a_stream_that_is_withdrawn_says_by_whom(addresses: dict[str, str], form: str) -> None:
    with slabwire.connect(addresses[form]) as client:
        items = client.stream("upto.upto", 10_000)
        assert next(items) == 0
        client.withdraw()
        with pytest.raises(ClientClosed, match="stopped by whoever was to read this stream"):
            list(items)
        assert list(client.stream("upto.upto", 3)) == [0, 1, 2]

    async def main() -> None:
        async with slabwire.connect_async(addresses[form]) as client:
            items = client.stream("upto.upto", 10_000)
            assert await anext(items) == 0
            await client.withdraw()
            with pytest.raises(ClientClosed, match="stopped by whoever was to read this stream"):
                await anext(items)
            assert [each async for each in client.stream("upto.upto", 3)] == [0, 1, 2]

    asyncio.run(main())


@FORMS
def test_a_long_stream_is_read_whole_by_both(addresses: dict[str, str], form: str) -> None:
    """More than may be on its way at a time, so room for more has to be granted."""
    with slabwire.connect(addresses[form]) as client:
        assert list(client.stream("upto.upto", 1000)) == list(range(1000))

    async def main() -> None:
        async with slabwire.connect_async(addresses[form]) as client:
            assert [each async for each in client.stream("upto.upto", 1000)] == list(range(1000))

    asyncio.run(main())


def test_keys_are_for_addresses() -> None:
    for connect in (slabwire.connect, slabwire.connect_async):
        with pytest.raises(slabwire.StartError, match="keys= is for addresses, and 'one-client' is the name"):
            connect("one-client", keys="folder")
