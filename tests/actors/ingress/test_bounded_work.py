"""What grows with what a client sends is bounded before it is done: nobody else's stream waits for it."""

from __future__ import annotations

import asyncio
import difflib
import json
from typing import Any

import pytest

from scripted_chat import ACCEPTED, Ingress
from slabwire import Actor, Graph
from slabwire.actors.completion import KNOWN_WORDS, MOST_MESSAGES, BadMessages, PromptTooLong
from slabwire.actors.ingress.requests.body import parse_json
from slabwire.actors.ingress.requests.parameters import named, shown
from slabwire.actors.ingress.requests.refusals import Refusal
from slabwire.actors.llm.model_file.gguf import Gguf
from slabwire.actors.llm.text.template import ChatTemplate, conversation_of
from slabwire.actors.llm.text.tokenizer import Tokenizer
from slabwire.actors.prompt_cache.responses import is_short
from slabwire.bench.fidelity.tokenizer_corpus import the_model
from slabwire.runtime.actor.fields import fields_of
from slabwire.runtime.errors import MessageError
from slabwire.runtime.spelling import did_you_mean, near_or_all

LONG = "x" * (1 << 20)
EMPTY = {"role": "user", "content": ""}


class Takes(Actor):
    def number(self, pixels: int) -> int:
        return pixels


class Unread(list[Any]):
    """An array of which nobody may read further than a line."""

    def __iter__(self) -> Any:
        for index, each in enumerate(super().__iter__()):
            assert index < 100
            yield each


@pytest.fixture
def unmatched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(difflib, "SequenceMatcher", None)


def test_nobody_looks_for_what_is_near_to_a_name_longer_than_names_are(unmatched: None) -> None:
    for name in ("x" * 101, LONG):
        assert did_you_mean(name, ["model", LONG]) == ""
        assert near_or_all(name, ["model"] * 17) == ""
        assert asyncio.run(Ingress().post(None, None, **{name: 1})).error["param"] == name[:100]


def test_what_is_near_is_still_found() -> None:
    assert did_you_mean("pixel", ["pixels", "model"]) == "; did you mean 'pixels'?"
    assert near_or_all("statsu", ["status", "stop"]) == "; did you mean 'status'?"


def test_an_unknown_field_of_a_port_is_quoted_no_longer_than_names_are(unmatched: None) -> None:
    graph = Graph("g")
    graph.add(Takes)
    (actor,) = graph.validate().actors
    with pytest.raises(MessageError) as caught:
        fields_of(actor.handlers[0], "takes", (), {LONG: 1})
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("value", [Unread([0] * 1000), {"a": Unread([[]] * 1000)}, [Unread(["x"] * 1000)]])
def test_of_a_value_no_more_is_made_than_is_shown(value: Any) -> None:
    assert len(shown(value)) == 60


@pytest.mark.parametrize("text", [LONG, "\0" * 70, "é" * 70, '"' * 70])
def test_long_texts_are_cut(text: str) -> None:
    assert len(shown(text)) == 60
    assert len(shown({text: text})) == 60
    assert len(named(text)) == 62


@pytest.mark.parametrize("number", ["9" * 401, "-" + "9" * 401, "0." + "1" * 401, "1e" + "0" * 401])
def test_numbers_of_hundreds_of_digits_are_not_computed(number: str) -> None:
    with pytest.raises(Refusal, match="more than 400 digits"):
        asyncio.run(parse_json(f'{{"a": [{number}]}}'.encode()))


@pytest.mark.parametrize(
    "inner",
    [
        b'"messages":[%s]' % b",".join([b"[]"] * 20_000),
        b'"messages":[%s]' % b",".join([json.dumps(EMPTY).encode()] * 17_000),
        b'"messages":[{"role":"user","content":[%s]}]' % b",".join([b'{"type":"text","text":""}'] * 20_000),
        b'"user":[%s]' % b",".join([b"0"] * 20_000),
        b'"metadata":{%s}' % b",".join(b'"%d":0' % number for number in range(20_000)),
        b'"tool_choice":"none","tools":[%s]' % b",".join([b"{}"] * 20_000),
        b"[" * 20_000,
    ],
)
def test_a_body_of_too_many_values_is_not_parsed(inner: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    ingress = Ingress()
    monkeypatch.setattr("slabwire.actors.ingress.requests.body.parse_json", None)
    answer = asyncio.run(ingress.post(b'{"model":"smol",%s}' % inner))
    assert (answer.status, answer.error["code"]) == (400, "too_many_values")
    assert ingress.chat.asked == []


def test_as_many_messages_as_are_taken_have_few_enough_values() -> None:
    message = {"role": "user", "name": "me", "content": [{"type": "text", "text": "x, [y] {z}"}]}
    assert asyncio.run(Ingress().post(messages=[message] * MOST_MESSAGES)).status == 200


def test_others_have_their_turn_between_the_steps_of_parsing() -> None:
    async def scene() -> None:
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        beside = asyncio.create_task(other())
        request = Ingress().begin()
        await request.done()
        beside.cancel()
        assert turns >= 4

    asyncio.run(scene())


def test_messages_are_not_sent_for_more_choices_than_one_body_could_hold() -> None:
    ingress = Ingress(body_bytes=10_000)
    messages = [{"role": "user", "content": "x" * 2500}]
    assert asyncio.run(ingress.post(messages=messages, n=4)).status == 200
    answer = asyncio.run(ingress.post(messages=messages, n=5))
    assert (answer.status, answer.error["param"], len(ingress.chat.asked)) == (400, "n", 4)


def test_the_words_by_which_clients_know_a_prompt_that_is_too_long() -> None:
    for script in ((PromptTooLong("9000 tokens; 8192 fit"),), (ACCEPTED, PromptTooLong("9000 tokens; 8192 fit"))):
        answer = asyncio.run(Ingress(script).post())
        assert answer.error["message"] == f"{KNOWN_WORDS} exceeded: 9000 tokens; 8192 fit"
        assert (answer.error["param"], answer.error["code"]) == ("messages", "context_length_exceeded")
    answer = asyncio.run(Ingress((PromptTooLong(f"{KNOWN_WORDS} 9 tokens."),)).post())
    assert answer.error["message"] == f"{KNOWN_WORDS} 9 tokens."


# -- the model ---------------------------------------------------------------------------------------------------------


class Unlooked(dict[str, Any]):
    """A message that nobody may look at."""

    def get(self, name: str, default: Any = None) -> Any:
        raise AssertionError(name)


def test_too_many_messages_or_parts_are_counted_and_not_looked_at() -> None:
    with pytest.raises(PromptTooLong, match=f"{KNOWN_WORDS} exceeded: there are 2049 messages, of 2048 at most"):
        conversation_of([Unlooked()] * (MOST_MESSAGES + 1))
    with pytest.raises(PromptTooLong, match=f"{KNOWN_WORDS} 50 tokens. However, there are 51 messages, of 50 at most"):
        conversation_of([Unlooked()] * 51, 50)
    parts = [{"type": "text", "text": ""}] * (MOST_MESSAGES // 2 + 1)
    with pytest.raises(PromptTooLong, match="have 2050 parts, of 2048 at most"):
        conversation_of([{"role": "user", "content": parts}] * 2)


def test_a_strange_role_is_quoted_short() -> None:
    for role in (LONG, [[0] * 1000] * 1000, {LONG: LONG}):
        with pytest.raises(BadMessages) as caught:
            conversation_of([{"role": role, "content": ""}])
        assert len(str(caught.value)) < 200


def test_of_a_prompt_that_is_too_long_the_rest_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    with Gguf(the_model()) as gguf:
        tokenizer = Tokenizer(gguf.metadata)
    made, encode = 0, Tokenizer.encode

    def counted(self: Tokenizer, text: str, *, special: bool) -> list[int]:
        nonlocal made
        tokens = encode(self, text, special=special)
        made += len(tokens)
        return tokens

    monkeypatch.setattr(Tokenizer, "encode", counted)
    template = ChatTemplate("{% for each in messages %}<|im_start|>{{ each.content }}<|im_end|>{% endfor %}")
    prompt = template.prompt_tokens([{"role": "user", "content": "ab"}] * 400, tokenizer, 400)
    assert 400 < len(prompt) < 420
    assert made < 420


def test_a_request_is_named_only_if_it_is_short() -> None:
    assert is_short([[EMPTY] * 1000, ["x"]])
    assert is_short("x" * 1000, 1000)
    for much in ("x" * 1001, ["x" * 600, {"x": "x" * 600}], [0] * 40, {str(number): 0 for number in range(20)}):
        assert not is_short(much, 1000)
    nested: Any = 0
    for _ in range(10_000):
        nested = [nested]
    assert not is_short(nested)
