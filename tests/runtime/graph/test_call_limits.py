"""How many calls may be in flight is the author's to say, within what one process can hold."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

import slabwire
from slabwire import Actor, Graph
from slabwire.runtime.errors import GraphError, Overloaded
from slabwire.runtime.spec import MOST_CALLS
from waiting import worker_of


class Slow(Actor):
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.told = asyncio.Event()

    async def wait(self, n: int) -> int:
        await self.told.wait()
        return n

    async def tell(self) -> None:
        self.told.set()


class Many(Actor):
    """Has many calls in flight itself."""

    async def ask(self, n: int) -> int:
        return sum(await asyncio.gather(*(self.call("slow.wait", each) for each in range(n))))

    def items(self, n: int) -> Iterator[int]:
        yield from range(n)


def test_a_client_has_as_many_calls_in_flight_as_the_graph_allows() -> None:
    graph = Graph("wide", client_calls=300)
    slow = graph.add(Slow, concurrency=400)
    graph.expose(slow.wait, slow.tell)
    with graph.run() as running, slabwire.connect(running.name) as client:
        streams = [client._connection.begin("slow.wait", (n,), {}, 0, "", stream=False) for n in range(300)]
        with pytest.raises(Overloaded, match=r"300 calls are in flight already; .* Graph\(client_calls=\)"):
            client.call("slow.tell")
        client._connection.cancel(streams.pop())
        client.call("slow.tell")
        for n, pending in enumerate(streams):
            client._connection.wait(pending, 0, "slow.wait")
            assert pending.result() == n


def test_an_actor_has_as_many_calls_in_flight_as_it_was_given() -> None:
    graph = Graph("deep")
    slow, many = graph.add(Slow, concurrency=2_000), graph.add(Many, calls=1_000)
    graph.expose(slow.tell, many.ask)

    async def run(running: Any) -> int:
        async with slabwire.connect_async(running.name) as client:
            asked = asyncio.create_task(client.call("many.ask", 1_000))
            while worker_of(running, "slow")["actors"][0]["in_flight"] < 1_000:
                await asyncio.sleep(0.01)
            assert worker_of(running, "slow")["actors"][0]["places"] == 2_000
            many = worker_of(running, "many")
            assert (many["calls"], many["most_calls"]) == (1_000, 1_000)
            await client.call("slow.tell")
            return int(await asked)

    with graph.run() as running:
        assert asyncio.run(run(running)) == sum(range(1_000))


@pytest.mark.parametrize("calls", [0, -1, True, "8", 1.5])
def test_what_is_no_number_of_calls_is_refused(calls: object) -> None:
    graph = Graph("odd", client_calls=calls)  # type: ignore[arg-type]
    graph.add(Many, calls=calls)  # type: ignore[arg-type]
    with pytest.raises(GraphError) as refused:
        graph.validate()
    assert f"client_calls={calls!r} of the graph must be a whole number from 1 to {MOST_CALLS}" in str(refused.value)
    assert f"actor 'many': calls={calls!r} must be a whole number of at least 1" in str(refused.value)


def test_the_actors_of_one_worker_have_no_more_calls_together_than_a_process_can_hold() -> None:
    graph = Graph("crowded")
    graph.add(Many, name="one", worker="w", calls=MOST_CALLS)
    graph.add(Many, name="two", worker="w", calls=1)
    graph.add(Slow, concurrency=1 << 20)
    with pytest.raises(GraphError) as refused:
        graph.validate()
    assert f"calls= of 'one', 'two' are {MOST_CALLS + 1} in all" in str(refused.value)
    assert f"actor 'slow': concurrency={1 << 20} is above 65536; use replicas" in str(refused.value)
