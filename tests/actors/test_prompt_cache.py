"""The caches of a model, in graphs that run: what one answers itself and hands on, what the other holds and lets go."""

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
from slabwire.actors.prompt_cache import PrefixCache, ResponseCache
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
    cache = graph.add(ResponseCache, name="cache", model="llm", **settings)
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


def numbers(running: Any) -> dict[str, int]:
    told: dict[str, int] = running.client.call("cache.describe")["cache"]
    return told


def learn(running: Any, text: str, **fields: Any) -> list[dict[str, Any]]:
    """Asks, and waits until the answer is kept: the cache is told of it when its caller has it already."""
    stored = numbers(running)["responses_stored"]
    items = ask(running, text, **fields)
    wait_until(lambda: numbers(running)["responses_stored"] > stored)
    return items


def test_the_same_request_is_answered_from_memory(running: Any) -> None:
    first = learn(running, "count 200", temperature=0.0)
    assert len(first) == 202
    assert first[-1] == {"finish_reason": "stop", "prompt_tokens": 7, "completion_tokens": 200, "cached_tokens": 3}
    again = ask(running, "count 200", temperature=0, max_tokens=None, stop=[])
    assert again[:-1] == first[:-1]
    assert again[-1] == {**first[-1], "cached_tokens": 7}
    assert running.client.call("llm.times_asked") == 1
    assert learn(running, "count 200", temperature=0.0, max_tokens=5)[1]["text"] == " 2.0"
    assert learn(running, "count 200", temperature=0.0, seed=5)[1]["text"] == " 3.0"
    assert ask(running, "count 200", temperature=0.0)[1]["text"] == " 1.0"
    told = running.client.call("cache.describe")
    assert told["model"] == "counting"
    assert told["stats"] == {"asked": 3}
    assert (told["cache"]["responses_hits"], told["cache"]["responses_misses"]) == (2, 3)


@pytest.mark.parametrize("count", [0, 61, 62, 63, 64, 126, 127, 2000])
def test_a_known_answer_comes_whole_however_long_it_is(running: Any, count: int) -> None:
    """At once with the end, where a reader has room for it, or piece by piece."""
    first = learn(running, f"count {count}", temperature=0.0)
    assert len(first) == count + 2
    for _ in range(3):
        assert ask(running, f"count {count}", temperature=0.0)[:-1] == first[:-1]
    assert running.client.call("llm.times_asked") == 1


def test_a_known_answer_for_a_reader_that_takes_its_time_holds_up_nobody(running: Any) -> None:
    first = learn(running, "count 500", temperature=0.0)
    slow = [stream(running, "count 500", temperature=0.0) for _ in range(20)]
    assert [next(each) for each in slow] == [first[0]] * 20
    left = slow.pop()
    left.close()  # type: ignore[attr-defined]
    assert ask(running, "count 500", temperature=0.0)[:-1] == first[:-1]
    assert ask(running, "count 2")[1]["text"] == " 2.0"
    assert [list(each)[:-1] for each in slow] == [first[1:-1]] * 19


def test_a_request_with_many_answers_gets_a_new_one(running: Any) -> None:
    for times in (1, 2, 3):
        assert ask(running, "count 2")[1]["text"] == f" {times}.0"
    assert learn(running, "count 2", seed=7)[1]["text"] == " 4.0"
    assert ask(running, "count 2", seed=7)[1]["text"] == " 4.0"
    assert numbers(running)["responses_answers"] == 1


def test_a_caller_that_leaves_with_the_last_item_has_it_kept(running: Any) -> None:
    """The model ends its stream with that item: nothing can be cancelled any more."""
    for count in (3, 100):
        for item in (items := stream(running, f"count {count}", temperature=0.0)):
            if "finish_reason" in item:
                break
        items.close()  # type: ignore[attr-defined]
    wait_until(lambda: numbers(running)["responses_answers"] == 2)
    assert len(ask(running, "count 3", temperature=0.0)) == 5
    assert running.client.call("llm.times_asked") == 2


def test_an_answer_that_is_larger_than_all_that_may_be_kept_is_given_all_the_same(tmp_path: Path) -> None:
    with chats(tmp_path, response_bytes=500).run() as running:
        for times in (1, 2):
            assert len(ask(running, "count 100", temperature=0.0)) == 102
            assert running.client.call("llm.times_asked") == times
        assert len(learn(running, "count 2", temperature=0.0)) == 4
        assert numbers(running)["responses_answers"] == 1


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
    learn(running, "count 2", temperature=0.0)  # behind what was told of the others
    assert numbers(running)["responses_answers"] == 1


def test_leaving_stops_the_model(running: Any, tmp_path: Path) -> None:
    items = stream(running, "count 3 stay", temperature=0.0)
    assert [next(items) for _ in range(4)][-1]["text"] == " 1.2"
    items.close()  # type: ignore[attr-defined]
    wait_until((tmp_path / "closed").exists)
    learn(running, "count 2", temperature=0.0)
    assert numbers(running)["responses_answers"] == 1


def test_answers_grow_too_old(tmp_path: Path) -> None:
    with chats(tmp_path, ttl_s=0.2).run() as running:
        assert learn(running, "count 2", temperature=0.0)[1]["text"] == " 1.0"
        wait_until(lambda: ask(running, "count 2", temperature=0.0)[1]["text"] == " 2.0")
        assert numbers(running)["responses_expired"] >= 1


# -- deaths ------------------------------------------------------------------------------------------------------------


def test_an_answer_goes_on_when_the_cache_dies(tmp_path: Path) -> None:
    """It comes from the model alone, and what a dead cache has asked to know is kept by its successor."""
    with chats(tmp_path).run() as running:
        assert learn(running, "count 2", temperature=0.0)[1]["text"] == " 1.0"
        items = stream(running, "count 500", temperature=0.0)
        assert next(items) == {"prompt_tokens": 7}
        kill(running, "cache")
        assert [each["text"] for each in list(items)[:-1]] == [f" 2.{i}" for i in range(500)]
        wait_until(lambda: numbers(running)["responses_answers"] == 1)
        assert ask(running, "count 500", temperature=0.0)[1]["text"] == " 2.0"
        assert ask(running, "count 2", temperature=0.0)[1]["text"] == " 3.0"


def test_leaving_stops_the_model_when_the_cache_has_died(running: Any, tmp_path: Path) -> None:
    items = stream(running, "count 3 stay", temperature=0.0)
    assert next(items) == {"prompt_tokens": 7}
    kill(running, "cache")
    items.close()  # type: ignore[attr-defined]
    wait_until((tmp_path / "closed").exists)


def test_a_known_answer_that_is_given_in_pieces_ends_with_the_cache(running: Any) -> None:
    """And says so: its successor knows nothing of it, and the model might choose other words."""
    learn(running, "count 500", temperature=0.0)
    items = stream(running, "count 500", temperature=0.0)
    assert next(items) == {"prompt_tokens": 7}
    kill(running, "cache")
    with pytest.raises(slabwire.Interrupted):
        list(items)
    assert running.client.call("llm.times_asked") == 1


def test_a_model_that_dies_in_the_middle_is_not_remembered(running: Any) -> None:
    items = stream(running, "count 3 stay", temperature=0.0)
    assert next(items) == {"prompt_tokens": 7}
    kill(running, "llm")
    with pytest.raises(slabwire.Interrupted):
        list(items)
    assert learn(running, "count 2", temperature=0.0)[1]["text"] == " 1.0"
    assert numbers(running)["responses_answers"] == 1


def test_what_the_caches_say_of_themselves(tmp_path: Path) -> None:
    """A prefix cache that does not answer costs its own numbers; a name that nobody has is told."""
    graph = chats(tmp_path, prefixes="prefixes")
    graph.add(PrefixCache, name="prefixes")
    with graph.run() as running:
        assert numbers(running)["prefixes_pages"] == 0
        os.kill(stuck := worker_of(running, "prefixes")["pid"], signal.SIGSTOP)
        told = running.client.call("cache.describe", timeout_s=60)
        assert told["model"] == "counting"
        assert not any(name.startswith("prefixes") for name in told["cache"])
        os.kill(stuck, signal.SIGCONT)
        wait_until(lambda: "prefixes_pages" in numbers(running))
    with chats(tmp_path, prefixes="prefixs").run() as running:
        with pytest.raises(slabwire.UnknownPort, match=r"prefixs\.describe"):
            numbers(running)
        assert len(ask(running, "count 2")) == 4


def test_a_model_that_asks_for_pages_is_heard_however_many_wait_for_it() -> None:
    graph = Graph("curious")
    graph.add(CuriousModel, name="llm", concurrency=256)
    graph.add(PrefixCache, name="prefixes")
    graph.expose(graph.add(ResponseCache, name="cache", model="llm").chat)

    async def ask_all(name: str) -> list[int]:
        async def one(client: Any) -> int:
            return len([item async for item in client.stream("cache.chat", [], timeout_s=60)])

        async with slabwire.connect_async(name) as client:
            return list(await asyncio.gather(*(one(client) for _ in range(120))))

    with graph.run():
        for _ in range(3):
            assert asyncio.run(ask_all("curious")) == [2] * 120


# -- pages -------------------------------------------------------------------------------------------------------------


def pages(**settings: Any) -> Graph:
    graph = Graph("pages")
    owner = graph.add(PageOwner, name="owner")
    prefixes = graph.add(PrefixCache, name="prefixes", **settings)
    graph.expose(owner.offer, owner.known, owner.borrow, owner.look, owner.touch, prefixes.store, prefixes.prefix)
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
        assert used_nbytes(running, "prefixes") < 1 << 16
        assert worker_of(running, "prefixes")["slab_bytes"] < PAGE_NBYTES


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
        kill(running, "prefixes")
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
            assert client.call("prefixes.store", b"", prompt(start, 32), np.full(small, start, np.float32))
        (last,) = client.stream("prefixes.prefix", np.array(prompt(59_900, 32), np.int32))
        assert (last["tokens"], float(last["kv"][0])) == (32, 59_900.0)
        assert list(client.stream("prefixes.prefix", np.array(prompt(0, 32), np.int32))) == []
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
            running.client.call("prefixes.store", **page)
        with pytest.raises(slabwire.MessageError, match="one row"):
            list(running.client.stream("prefixes.prefix", np.zeros((2, 2), np.int32)))
