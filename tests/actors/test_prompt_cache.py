"""The cache before a model, in graphs that run: what it answers itself, what it hands on, and what it lets go."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import slabwire
from chat_stage import PAGE_SHAPE, CountingModel, CuriousModel, PageOwner
from slabwire import Graph
from slabwire.actors.completion import PromptTooLong
from slabwire.actors.prompt_cache import PromptCache
from slabwire.actors.prompt_cache.cache import MOST_ASKED
from waiting import wait_until, worker_of

PAGE_NBYTES = 4
for _axis in PAGE_SHAPE:
    PAGE_NBYTES *= _axis


@pytest.fixture(autouse=True)
def run_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(tmp_path / "run"))


def kill(running: Any, name: str) -> None:
    """Kills a worker, and waits until its successor is ready."""
    pid = worker_of(running, name)["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: (each := worker_of(running, name))["state"] == "ready" and each["pid"] != pid)


# -- whole answers -----------------------------------------------------------------------------------------------------


def chats(folder: Path, **settings: Any) -> Graph:
    graph = Graph("chats")
    llm = graph.add(CountingModel, name="llm", folder=str(folder))
    cache = graph.add(PromptCache, name="cache", model="llm", **settings)
    graph.expose(cache.chat, cache.describe, llm.times_asked)
    return graph


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Any]:
    with chats(tmp_path).run() as running:
        yield running


def ask(running: Any, text: str, **fields: Any) -> list[dict[str, Any]]:
    return list(stream(running, text, **fields))


def stream(running: Any, text: str, **fields: Any) -> Iterator[dict[str, Any]]:
    messages = [{"role": "user", "content": text}]
    items: Iterator[dict[str, Any]] = running.client.stream("cache.chat", messages, timeout_s=60, **fields)
    return items


def test_the_same_request_is_answered_from_memory(running: Any) -> None:
    first = ask(running, "count 200", temperature=0.0)
    assert len(first) == 202
    assert first[-1] == {"finish_reason": "stop", "prompt_tokens": 7, "completion_tokens": 200, "cached_tokens": 3}
    again = ask(running, "count 200", temperature=0, max_tokens=None, stop=[])
    assert again[:-1] == first[:-1]
    assert again[-1] == {**first[-1], "cached_tokens": 7}
    assert running.client.call("llm.times_asked") == 1
    assert ask(running, "count 200", temperature=0.0, max_tokens=5)[1]["text"] == " 2.0"
    assert ask(running, "count 200", temperature=0.0, seed=5)[1]["text"] == " 3.0"
    assert ask(running, "count 200", temperature=0.0)[1]["text"] == " 1.0"
    told = running.client.call("cache.describe")
    assert told["model"] == "counting"
    assert told["stats"] == {"asked": 3}
    assert (told["cache"]["responses_hits"], told["cache"]["responses_misses"], told["cache"]["asked"]) == (2, 3, 0)


def test_a_request_with_many_answers_gets_a_new_one(running: Any) -> None:
    for times in (1, 2, 3):
        assert ask(running, "count 2")[1]["text"] == f" {times}.0"
    assert ask(running, "count 2", seed=7)[1]["text"] == " 4.0"
    assert ask(running, "count 2", seed=7)[1]["text"] == " 4.0"
    assert running.client.call("cache.describe")["cache"]["responses_answers"] == 1


def test_a_caller_that_leaves_with_the_last_item_has_it_kept(running: Any) -> None:
    items = stream(running, "count 3", temperature=0.0)
    for item in items:
        if "finish_reason" in item:
            break
    items.close()  # type: ignore[attr-defined]
    assert len(ask(running, "count 3", temperature=0.0)) == 5
    assert running.client.call("llm.times_asked") == 1


@pytest.mark.parametrize(
    ("text", "error"),
    [("count 3 fail", slabwire.HandlerError), ("count 3 long", PromptTooLong), ("count 3 cut", None)],
)
def test_what_did_not_end_well_is_not_kept(running: Any, text: str, error: type[Exception] | None) -> None:
    for times in (1, 2):
        if error is None:
            assert len(ask(running, text, temperature=0.0)) == 4
        else:
            with pytest.raises(error):
                ask(running, text, temperature=0.0)
        assert running.client.call("llm.times_asked") == times
    assert running.client.call("cache.describe")["cache"]["responses_answers"] == 0


def test_leaving_stops_the_model(running: Any, tmp_path: Path) -> None:
    items = stream(running, "count 3 stay", temperature=0.0)
    assert [next(items) for _ in range(4)][-1]["text"] == " 1.2"
    items.close()  # type: ignore[attr-defined]
    wait_until(lambda: (tmp_path / "closed").exists())
    wait_until(lambda: running.client.call("cache.describe")["cache"]["asked"] == 0)
    assert running.client.call("cache.describe")["cache"]["responses_answers"] == 0


def test_answers_grow_too_old(tmp_path: Path) -> None:
    with chats(tmp_path, ttl_s=0.2).run() as running:
        assert ask(running, "count 2", temperature=0.0)[1]["text"] == " 1.0"
        wait_until(lambda: ask(running, "count 2", temperature=0.0)[1]["text"] == " 2.0")
        assert running.client.call("cache.describe")["cache"]["responses_expired"] >= 1


def test_a_cache_that_dies_in_the_middle_says_so_and_comes_back(tmp_path: Path) -> None:
    with chats(tmp_path).run() as running:
        assert ask(running, "count 2", temperature=0.0)[1]["text"] == " 1.0"
        items = stream(running, "count 3 stay", temperature=0.0)
        assert next(items) == {"prompt_tokens": 7}
        kill(running, "cache")
        with pytest.raises(slabwire.Interrupted):
            list(items)
        wait_until((tmp_path / "closed").exists)  # the model does not go on for nobody
        assert ask(running, "count 2", temperature=0.0)[1]["text"] == " 3.0"
        assert ask(running, "count 2", temperature=0.0)[1]["text"] == " 3.0"


def test_a_model_that_dies_in_the_middle_is_not_remembered(running: Any) -> None:
    items = stream(running, "count 3 stay", temperature=0.0)
    assert next(items) == {"prompt_tokens": 7}
    kill(running, "llm")
    with pytest.raises(slabwire.Interrupted):
        list(items)
    assert running.client.call("cache.describe")["cache"]["responses_answers"] == 0
    assert ask(running, "count 2", temperature=0.0)[1]["text"] == " 1.0"


def test_a_model_that_asks_for_pages_is_heard_however_many_wait_for_it() -> None:
    graph = Graph("curious")
    graph.add(CuriousModel, name="llm", concurrency=256)
    graph.expose(graph.add(PromptCache, name="cache", model="llm").chat)

    async def ask_all(name: str) -> list[int]:
        async def one(client: Any) -> int:
            try:
                return len([item async for item in client.stream("cache.chat", [], timeout_s=60)])
            except slabwire.Overloaded:
                return 0

        async with slabwire.connect_async(name) as client:
            return list(await asyncio.gather(*(one(client) for _ in range(120))))

    with graph.run():
        for _ in range(3):
            answers = asyncio.run(ask_all("curious"))
            assert set(answers) <= {0, 2}
            assert answers.count(2) >= MOST_ASKED


# -- pages -------------------------------------------------------------------------------------------------------------


def pages(**settings: Any) -> Graph:
    graph = Graph("pages")
    owner = graph.add(PageOwner, name="owner")
    cache = graph.add(PromptCache, name="cache", model="owner", **settings)
    graph.expose(owner.offer, owner.known, owner.borrow, owner.look, owner.touch, cache.store, cache.prefix)
    return graph


def prompt(start: int, tokens: int) -> list[int]:
    return list(range(start, start + tokens))


def used_nbytes(running: Any, name: str) -> int:
    nbytes: int = worker_of(running, name)["slab_used_bytes"]
    return nbytes


def wait_for_pages_out(running: Any, least: int, most: int) -> None:
    """Waits until so many pages of the owner are out. It learns of those that came back when it takes a block."""

    def seen() -> bool:
        running.client.call("owner.touch")
        return least * PAGE_NBYTES <= used_nbytes(running, "owner") < (most + 1) * PAGE_NBYTES

    wait_until(seen)


def test_pages_come_back_as_they_were_and_nothing_is_copied() -> None:
    with pages().run() as running:
        keys = running.client.call("owner.offer", prompt(0, 150))
        assert len(set(keys)) == 5
        assert running.client.call("owner.known", prompt(0, 150)) == 150
        assert running.client.call("owner.known", prompt(0, 70) + prompt(900, 70)) == 70
        assert running.client.call("owner.known", prompt(900, 70)) == 0
        assert running.client.call("owner.offer", prompt(0, 150)) == keys
        for _ in range(30):
            assert running.client.call("owner.known", prompt(0, 150)) == 150
        wait_for_pages_out(running, 5, 5)
        assert used_nbytes(running, "cache") < 1 << 16
        assert worker_of(running, "cache")["slab_bytes"] < PAGE_NBYTES


def test_pages_that_make_room_go_back_to_their_owner() -> None:
    with pages(prefix_bytes=4 * PAGE_NBYTES).run() as running:
        for start in range(0, 20_000, 1000):
            assert None not in running.client.call("owner.offer", prompt(start, 64))
        assert running.client.call("owner.known", prompt(19_000, 64)) == 64
        assert running.client.call("owner.known", prompt(18_000, 64)) == 64
        assert running.client.call("owner.known", prompt(17_000, 64)) == 0
        wait_for_pages_out(running, 4, 4)


def test_a_page_that_makes_room_stays_as_long_as_it_is_read() -> None:
    with pages(prefix_bytes=2 * PAGE_NBYTES).run() as running:
        running.client.call("owner.offer", prompt(100, 64))
        assert running.client.call("owner.borrow", prompt(100, 64)) == 2
        for start in range(1000, 11_000, 1000):
            running.client.call("owner.offer", prompt(start, 64))
        assert running.client.call("owner.known", prompt(100, 64)) == 0
        wait_for_pages_out(running, 4, 4)
        assert running.client.call("owner.look") == [100.0, 132.0]
        wait_for_pages_out(running, 2, 2)


def test_a_cache_that_dies_gives_all_pages_back() -> None:
    with pages().run() as running:
        running.client.call("owner.offer", prompt(0, 320))
        assert running.client.call("owner.borrow", prompt(0, 64)) == 2
        wait_for_pages_out(running, 10, 10)
        kill(running, "cache")
        wait_for_pages_out(running, 2, 2)
        assert running.client.call("owner.look") == [0.0, 32.0]
        wait_for_pages_out(running, 0, 0)
        assert running.client.call("owner.known", prompt(0, 320)) == 0
        running.client.call("owner.offer", prompt(0, 320))
        assert running.client.call("owner.known", prompt(0, 320)) == 320


def test_pages_outlive_the_process_that_made_them() -> None:
    with pages().run() as running:
        running.client.call("owner.offer", prompt(0, 100))
        assert running.client.call("owner.borrow", prompt(0, 100)) == 4
        kill(running, "owner")
        assert running.client.call("owner.known", prompt(0, 100)) == 100
        assert None not in running.client.call("owner.offer", prompt(0, 200))
        assert running.client.call("owner.known", prompt(0, 200)) == 200
        wait_for_pages_out(running, 7, 7)


def test_more_pages_than_a_lane_has_leases() -> None:
    with pages(prefix_bytes=1 << 40).run() as running, slabwire.connect("pages") as client:
        small = (1 << 12) // 4
        for start in range(0, 60_000, 100):
            assert client.call("cache.store", b"", prompt(start, 32), np.full(small, start, np.float32))
        (last,) = client.stream("cache.prefix", np.array(prompt(59_900, 32), np.int32))
        assert (last["tokens"], float(last["kv"][0])) == (32, 59_900.0)
        assert list(client.stream("cache.prefix", np.array(prompt(0, 32), np.int32))) == []
        assert running.client.call("owner.offer", prompt(0, 64))
        del last


@pytest.mark.parametrize(
    "fields",
    [{"tokens": []}, {"tokens": list(range(33))}, {"tokens": [1 << 40]}, {"tokens": ["a"]}, {"parent": "text"}],
)
def test_what_is_no_page_is_named(fields: dict[str, Any]) -> None:
    with pages().run() as running:
        page = {"parent": b"", "tokens": [1], "kv": np.zeros(1000, np.float32), **fields}
        with pytest.raises(slabwire.MessageError):
            running.client.call("cache.store", **page)
        with pytest.raises(slabwire.MessageError, match="one row"):
            list(running.client.stream("cache.prefix", np.zeros((2, 2), np.int32)))
