"""A client of asyncio belongs to the loop that opened it, and says so in every other one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

import slabwire
from slabwire import Graph
from slabwire.runtime.errors import ClientClosed
from zero_copy import zero_copy_thread  # noqa: F401 - a fixture


def double(n: int) -> int:
    return 2 * n


@pytest.fixture(scope="module")
def addresses() -> Iterator[dict[str, str]]:
    graph = Graph("event-loops")
    graph.expose(graph.add(double))
    with graph.run(listen="tcp://127.0.0.1:0") as running:
        yield {"local": running.name, "remote": running.status()["gateway"]["listen"][0]}


@pytest.mark.parametrize("form", ["local", "remote"])
def test_another_loop_is_refused_at_once(addresses: dict[str, str], form: str) -> None:
    client: Any = slabwire.connect_async(addresses[form])

    async def enter() -> int:
        await client.open()
        return int(await client.call("double.double", 21))

    async def call() -> int:
        return int(await client.call("double.double", 21, timeout_s=None))

    assert asyncio.run(enter()) == 42
    with pytest.raises(ClientClosed, match="was opened in another event loop"):
        asyncio.run(call())
    asyncio.run(client.close())


@pytest.mark.parametrize("form", ["local", "remote"])
def test_each_loop_has_a_client_of_its_own(addresses: dict[str, str], form: str) -> None:
    async def call() -> int:
        async with slabwire.connect_async(addresses[form]) as client:
            return int(await client.call("double.double", 21))

    assert [asyncio.run(call()) for _ in range(2)] == [42, 42]
