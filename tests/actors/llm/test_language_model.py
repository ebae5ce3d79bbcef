"""The language model's actor by itself, and with a cache that is not what it should be."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import slabwire
from slabwire import Actor, Graph, ReplyStream
from slabwire.actors.completion import Accepted, Delta, Finished
from slabwire.actors.llm import LanguageModel
from slabwire.actors.llm.chat_model import ChatModel
from slabwire.actors.prompt_cache import PrefixCache
from tiny_llm import write_tiny_llm
from waiting import wait_until, worker_of

QUESTION = [{"role": "user", "content": "What is it that goes on four legs in the morning, and on two at noon? " * 3}]


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("SLABWIRE_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def model(tmp_path: Path) -> str:
    return str(write_tiny_llm(tmp_path))


def alone(model: str, **settings: Any) -> Graph:
    graph = Graph("alone")
    llm = graph.add(LanguageModel, name="llm", model=model, **settings)
    graph.expose(llm.chat, llm.describe)
    return graph


def ask(running: Any, port: str = "llm.chat", **fields: Any) -> tuple[str, dict[str, Any]]:
    """The text, and the last item."""
    settings = {"temperature": 0.0, "max_tokens": 20, "timeout_s": 60, **fields}
    items = list(running.client.stream(port, QUESTION, **settings))
    assert items[0] == {"prompt_tokens": items[-1]["prompt_tokens"]}
    assert items[0].keys() == Accepted.__required_keys__
    assert all(Delta.__required_keys__ <= each.keys() <= Delta.__annotations__.keys() for each in items[1:-1])
    assert items[-1].keys() == Finished.__required_keys__
    return "".join(each["text"] for each in items[1:-1]), items[-1]


def test_it_answers_without_a_cache(model: str) -> None:
    with alone(model).run() as running:
        text, end = ask(running)
        assert ask(running) == (text, end)
        assert (end["finish_reason"], end["completion_tokens"], end["cached_tokens"]) == ("length", 20, 0)
        described = running.client.call("llm.describe")
        assert (described["running"], described["waiting"], described["stats"]["requests"]) == (0, 0, 2)


def test_streams_go_on_while_a_prompt_is_made(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    making, may_end = threading.Event(), threading.Event()
    prompt = ChatModel.prompt

    def slow(self: ChatModel, messages: list[dict[str, Any]]) -> list[int]:
        if messages[0]["content"] == "slow":
            making.set()
            may_end.wait()
        return prompt(self, messages)

    monkeypatch.setattr(ChatModel, "prompt", slow)
    with alone(model).run(in_process=True) as running, ThreadPoolExecutor() as others:
        stream = running.client.stream("llm.chat", QUESTION, max_tokens=20, timeout_s=60)
        next(stream)
        waiting = others.submit(list, running.client.stream("llm.chat", [{"role": "user", "content": "slow"}]))
        try:
            making.wait()
            assert list(stream)[-1]["completion_tokens"] > 0
            assert running.client.call("llm.describe", timeout_s=60)["running"] == 0
            assert not waiting.done()
        finally:
            may_end.set()
        assert "finish_reason" in waiting.result()[-1]


def test_what_a_step_makes_for_all_answers_is_published_at_once(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []
    publish = Actor.publish

    def counted(
        self: Actor, items: Iterable[tuple[ReplyStream[Any], Any]], *, ended: Iterable[ReplyStream[Any]] = ()
    ) -> None:
        items = list(items)
        steps.append(len(items))
        publish(self, items, ended=ended)

    monkeypatch.setattr(Actor, "publish", counted)
    with alone(model, slots=8).run(in_process=True) as running, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: ask(running, max_tokens=300), range(8)))
    assert len({text for text, _ in answers}) == 1
    assert max(steps) >= 8
    # Prompts are taken in one after the other, so some steps are made for a few answers; most are made for all.
    assert len(steps) < sum(steps) / 2


def test_a_reader_that_is_slow_holds_no_slot_and_loses_nothing(model: str) -> None:
    """What it has no room for comes in one piece."""
    fields: dict[str, Any] = {"temperature": 0.0, "max_tokens": 500, "logprobs": 1}

    async def act(name: str) -> tuple[list[Any], list[Any]]:
        async with slabwire.connect_async(name) as client:
            expected = [item async for item in client.stream("llm.chat", QUESTION, **fields)]
            group = client.streams()
            slow = group.begin("llm.chat", QUESTION, **fields)
            slow.pause()
            while (await client.call("llm.describe"))["stats"]["requests"] < 2:
                await asyncio.sleep(0.01)
            assert (await client.call("llm.describe"))["running"] == 0
            assert [item async for item in client.stream("llm.chat", QUESTION, **fields)] == expected
            slow.resume()
            items: list[Any] = []
            while not slow.is_over:
                items += (await anext(group))[1]
            assert slow.error is None
            return expected, items

    with alone(model, slots=1, exact=True).run() as running:
        expected, items = asyncio.run(act(running.name))
    assert (items[0], items[-1]) == (expected[0], expected[-1])
    assert len(expected) > len(items) > 60
    assert items[:60] == expected[:60]
    assert max(each["tokens"] for each in items[1:-1]) > 400
    assert together(items) == together(expected)


def together(items: list[Any]) -> tuple[str, int, list[Any]]:
    """Text, tokens and their probabilities of a whole answer."""
    deltas = items[1:-1]
    return (
        "".join(each["text"] for each in deltas),
        sum(each["tokens"] for each in deltas),
        [chosen for each in deltas for chosen in each["logprobs"]],
    )


def test_who_leaves_makes_room_for_who_waits(model: str) -> None:
    """Wherever it is: in its slot, waiting for one, or with its prompt in the making."""

    async def act(name: str) -> None:
        async with slabwire.connect_async(name) as client:

            async def busy() -> tuple[int, int]:
                described = await client.call("llm.describe")
                return described["running"], described["waiting"]

            expected = [item async for item in client.stream("llm.chat", QUESTION, temperature=0.0, max_tokens=20)]
            group = client.streams()
            streams = [group.begin("llm.chat", QUESTION, temperature=0.0) for _ in range(3)]
            while await busy() != (1, 2):
                await asyncio.sleep(0.01)
            late = group.begin("llm.chat", QUESTION, temperature=0.0, timeout_s=0.2)
            last = client.stream("llm.chat", QUESTION, temperature=0.0, max_tokens=20)
            assert await anext(last) == expected[0]
            while not late.is_over:
                await anext(group)
            assert isinstance(late.error, slabwire.DeadlineExceeded)
            for each in [*streams, *(group.begin("llm.chat", QUESTION) for _ in range(8))]:
                each.cancel()
            assert [item async for item in last] == expected[1:]
            while await busy() != (0, 0):
                await asyncio.sleep(0.01)

    with alone(model, slots=1, exact=True, context=1 << 14).run() as running:
        asyncio.run(act(running.name))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"slots": 0}, r"slots=0 must be a whole number of at least 1"),
        ({"context": 4}, r"context=4 must be a whole number of at least 64"),
        ({"prefixes": "cahce"}, r"no port 'cahce\.shed'"),
        ({"prefixes": "llm"}, r"no port 'llm\.shed'"),
    ],
)
def test_settings_that_cannot_be_meant_end_the_start(model: str, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(slabwire.StartError, match=words), alone(model, **settings).run():
        pass


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"temperature": 7.0}, "temperature"),
        ({"logprobs": 99}, "logprobs is 99"),
        ({"stop": ["", "x"]}, "stop must be"),
        ({"stop": ["x" * 1001]}, "strings, of 1 to 1000 characters each"),
    ],
)
def test_settings_of_a_request_are_refused_before_the_first_item(
    model: str, fields: dict[str, Any], words: str
) -> None:
    with alone(model).run() as running, pytest.raises(slabwire.MessageError, match=words):
        ask(running, **fields)


def test_a_prompt_may_fill_the_context_but_for_one_token(model: str) -> None:
    with alone(model).run() as running:
        length = ask(running)[1]["prompt_tokens"]
    with alone(model, context=length + 1, slots=1, exact=True).run() as running:
        assert ask(running, max_tokens=None)[1]["completion_tokens"] == 1
    with (
        alone(model, context=length).run() as running,
        pytest.raises(slabwire.SlabwireError, match=rf"{length} tokens, and the model's context holds {length}"),
    ):
        ask(running)


def test_two_models_with_one_cache_do_not_mix(model: str, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = write_tiny_llm(tmp_path / "other", seed=2)
    with alone(str(other)).run() as running:
        expected = ask(running)[0]
    graph = Graph("two")
    first = graph.add(LanguageModel, name="first", model=model, prefixes="prefixes")
    second = graph.add(LanguageModel, name="second", model=str(other), prefixes="prefixes")
    prefixes = graph.add(PrefixCache, name="prefixes")
    graph.expose(first.chat, second.chat, prefixes.describe)
    with graph.run() as running:
        assert ask(running, "first.chat")[0] != expected
        wait_until(lambda: running.client.call("prefixes.describe")["pages"])
        text, end = ask(running, "second.chat")
        assert (text, end["cached_tokens"]) == (expected, 0)
        wait_until(lambda: ask(running, "second.chat")[1]["cached_tokens"] > 0)
        assert ask(running, "second.chat")[0] == expected


def test_a_cache_that_is_stuck_holds_up_one_request_and_not_all(model: str) -> None:
    graph = Graph("stuck")
    llm = graph.add(LanguageModel, name="llm", model=model, prefixes="prefixes")
    graph.add(PrefixCache, name="prefixes")
    graph.expose(llm.chat, llm.describe)
    with graph.run() as running:
        expected = ask(running)[0]
        stuck = worker_of(running, "prefixes")["pid"]
        os.kill(stuck, signal.SIGSTOP)
        try:
            assert {ask(running)[0] for _ in range(10)} == {expected}
            assert running.client.call("llm.describe")["stats"]["prefix_failures"] <= 2
        finally:
            os.kill(stuck, signal.SIGCONT)


def test_memory_that_is_full_of_pages_is_used_anew(model: str) -> None:
    """The model may hold fewer pages than its cache would keep: then the oldest go, and new ones are learnt."""
    graph = Graph("full")
    llm = graph.add(LanguageModel, name="llm", model=model, prefixes="prefixes", context=256, memory_bytes=1 << 19)
    prefixes = graph.add(PrefixCache, name="prefixes")
    graph.expose(llm.chat, prefixes.describe)

    def learn(number: int) -> bool:
        question = [{"role": "user", "content": f"{number} " * 60}]
        items = list(running.client.stream("llm.chat", question, max_tokens=2, timeout_s=60))
        return bool(items[-1]["cached_tokens"] > 60)

    with graph.run() as running:
        for number in range(12):
            wait_until(partial(learn, number))
        assert running.client.call("prefixes.describe")["evictions"] > 0
