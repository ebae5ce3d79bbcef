"""Variables of contexts (PEP 567) that a handler sets are its own: no other input sees them, whatever kind it is of."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from typing import Any

import pytest

from slabwire import Actor, Graph, batched

USER: ContextVar[str] = ContextVar("user", default="nobody")


def replaced(user: str) -> str:
    before = USER.get()
    USER.set(user)
    return before


class Remembers(Actor):
    def plain(self, user: str) -> str:
        return replaced(user)

    async def coroutine(self, user: str) -> str:
        return replaced(user)

    def generator(self, user: str) -> Iterator[str]:
        yield replaced(user)
        yield USER.get()

    async def async_generator(self, user: str) -> AsyncIterator[str]:
        yield replaced(user)
        yield USER.get()

    @batched(max_size=1, max_wait_s=0.0)
    def batch(self, users: list[str]) -> list[str]:
        return [replaced(each) for each in users]


@pytest.mark.parametrize("in_process", [False, True])
def test_what_one_input_sets_no_other_sees(in_process: bool) -> None:
    graph = Graph("context-variables")
    remembers = graph.add(Remembers, name="remembers")
    kinds = ("plain", "coroutine", "batch", "generator", "async_generator")
    graph.expose(*(getattr(remembers, each) for each in kinds))
    with graph.run(in_process=in_process) as running:
        client: Any = running.client
        for kind in kinds[:3]:
            assert [client.call(f"remembers.{kind}", user) for user in ("ann", "bob")] == ["nobody", "nobody"]
        for kind in kinds[3:]:
            for user in ("ann", "bob"):
                assert list(client.stream(f"remembers.{kind}", user)) == ["nobody", user]


def test_streams_that_interleave_keep_their_own() -> None:
    graph = Graph("context-streams")
    graph.expose(graph.add(Remembers, name="remembers", concurrency=4).generator)
    with graph.run() as running:
        streams = [running.client.stream("remembers.generator", user) for user in ("ann", "bob", "eve")]
        assert [next(each) for each in streams] == ["nobody"] * 3
        assert [next(each) for each in streams] == ["ann", "bob", "eve"]
