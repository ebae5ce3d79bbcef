"""What a request's body may hold, and how one is turned away: no server, no model."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slabwire.actors.completion import MOST_CONTENT_NBYTES, PromptTooLong
from slabwire.actors.ingress.openai.chat_request import ChatRequest, chat_request
from slabwire.actors.ingress.requests.body import parse_json
from slabwire.actors.ingress.requests.refusals import Refusal
from slabwire.runtime.errors import SlabwireError

HELLO = [{"role": "user", "content": "Hello"}]


def read(**fields: Any) -> ChatRequest:
    return chat_request({"model": "smol", "messages": HELLO, **fields})


def refusal(**fields: Any) -> Refusal:
    with pytest.raises(Refusal) as caught:
        read(**fields)
    return caught.value


def test_a_bare_request_has_openais_defaults() -> None:
    asked = read()
    assert asked.fields(0) == {
        "messages": HELLO,
        "max_tokens": None,
        "temperature": 1.0,
        "top_p": 1.0,
        "seed": None,
        "stop": None,
        "logprobs": None,
    }
    assert (asked.n, asked.stream, asked.include_usage) == (1, False, False)


def test_every_setting_reaches_the_chat_port() -> None:
    settings: dict[str, Any] = {"max_tokens": 9, "temperature": 0, "top_p": 0.5, "seed": 4, "stop": "\n"}
    fields = read(**settings, logprobs=True, top_logprobs=2).fields(0)
    assert fields == {"messages": HELLO, **settings, "stop": ["\n"], "logprobs": 2}
    assert type(fields["temperature"]) is float


def test_a_null_counts_as_absent() -> None:
    nulls = ("max_tokens", "temperature", "seed", "stop", "tools", "logprobs", "n", "stream_options", "user", "stream")
    assert read(**dict.fromkeys(nulls)) == read()


@pytest.mark.parametrize(("seed", "seeds"), [(None, [None, None]), (5, [5, 6]), (-1, [2**63 - 1, 0])])
def test_each_choice_has_a_seed_of_its_own(seed: int | None, seeds: list[int | None]) -> None:
    asked = read(seed=seed, n=2)
    assert [asked.fields(choice)["seed"] for choice in range(2)] == seeds


@pytest.mark.parametrize(
    ("fields", "tokens"),
    [({"max_tokens": 3}, 3), ({"max_completion_tokens": 4}, 4), ({"max_tokens": 5, "max_completion_tokens": 5}, 5)],
)
def test_both_names_of_the_most_tokens(fields: dict[str, int], tokens: int) -> None:
    assert read(**fields).max_tokens == tokens


def test_what_says_nothing_about_the_answer_is_ignored() -> None:
    assert read(user="u", metadata={"a": "b"}, store=True, service_tier="auto", prompt_cache_key="k") == read()


def test_what_asks_for_nothing_is_taken() -> None:
    neutral: dict[str, Any] = {
        "presence_penalty": 0.0,
        "frequency_penalty": 0,
        "logit_bias": {},
        "tools": [],
        "tool_choice": "auto",
        "response_format": {"type": "text"},
        "modalities": ["text"],
    }
    assert read(**neutral) == read()
    called: list[Any] = [{"type": "function", "function": {"name": "f"}}]
    assert read(tools=called, tool_choice="none", functions=called, function_call="none") == read()


@pytest.mark.parametrize(
    "fields",
    [
        {"logprobs": False, "top_logprobs": 0},
        {"top_logprobs": 0},
        {"stream_options": {}},
        {"stream_options": {"include_usage": False}},
        {"repetition_penalty": 1.0, "repeat_penalty": 1, "length_penalty": 1.0, "typical_p": 1.0},
        {"min_p": 0, "top_a": 0.0, "mirostat": 0, "min_tokens": 0, "top_k": -1},
        {"top_k": 0, "best_of": 1, "n": 1, "stop": [], "seed": None},
        {"ignore_eos": False, "skip_special_tokens": True, "stop_token_ids": [], "echo": False, "suffix": ""},
        {"use_beam_search": False, "add_generation_prompt": True, "chat_template_kwargs": {}, "think": False},
        {"guided_json": None, "prompt": None, "reasoning": {}, "include_reasoning": True, "n_predict": -1},
        {"cache_prompt": True, "priority": 0, "keep_alive": "5m", "service_tier": "auto", "store": False},
    ],
)
def test_what_other_servers_clients_send_unasked_is_taken(fields: dict[str, Any]) -> None:
    assert read(**fields) == read()


def test_a_top_p_of_0_is_greedy() -> None:
    assert read(top_p=0, temperature=1.5) == read(temperature=0)


def test_what_an_assistant_did_not_say_is_taken_too() -> None:
    parts = [{"type": "text", "text": "Well."}, {"type": "refusal", "refusal": "No."}]
    answers: list[tuple[dict[str, Any], str]] = [
        ({"content": None}, ""),
        ({}, ""),
        ({"content": None, "refusal": "I will not."}, "I will not."),
        ({"content": parts}, "Well.\nNo."),
    ]
    for fields, text in answers:
        assert read(messages=[{"role": "assistant", **fields}]).messages == [{"role": "assistant", "content": text}]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("presence_penalty", 0.5),
        ("frequency_penalty", -1),
        ("logit_bias", {"5": -100}),
        ("tools", [{"type": "function", "function": {"name": "f"}}]),
        ("tool_choice", "required"),
        ("functions", [{"name": "f"}]),
        ("response_format", {"type": "json_object"}),
        ("modalities", ["text", "audio"]),
        ("audio", {"voice": "alloy", "format": "wav"}),
    ],
)
def test_what_cannot_be_done_is_said_not_skipped(name: str, value: Any) -> None:
    error = refusal(**{name: value})
    assert (error.param, error.reason) == (name, "unsupported_value")
    assert name in str(error)
    assert "leave it out" in str(error)


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"temperature": 2.1}, "temperature", "from 0 to 2, but got 2.1"),
        ({"temperature": "hot"}, "temperature", "expected a number, but got a string"),
        ({"temperature": True}, "temperature", "but got a boolean"),
        ({"top_p": -0.1}, "top_p", "from 0 to 1"),
        ({"n": 0}, "n", "from 1 to 8"),
        ({"n": 9}, "n", "from 1 to 8"),
        ({"n": 1.0}, "n", "expected an integer, but got a decimal number"),
        ({"seed": 1 << 63}, "seed", "an integer from"),
        ({"max_tokens": 0}, "max_tokens", "from 1 to"),
        ({"max_tokens": True}, "max_tokens", "got a boolean"),
        ({"max_tokens": 1, "max_completion_tokens": 2}, "max_tokens", "set one of them"),
        ({"stop": [""]}, "stop[0]", "1 to 1000 characters"),
        ({"stop": ""}, "stop", "1 to 1000 characters"),
        ({"stop": ["a", 1]}, "stop[1]", "got an integer"),
        ({"stop": list("abcde")}, "stop", "takes 4"),
        ({"stop": {"a": 1}}, "stop", "got an object"),
        ({"stream": "yes"}, "stream", "expected a boolean"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "'stream' is true"),
        ({"stream": True, "stream_options": {"include_usage": 1}}, "stream_options.include_usage", "a boolean"),
        ({"stream": True, "stream_options": {"include_use": True}}, "stream_options.include_use", "'include_usage'"),
        ({"logprobs": 3}, "logprobs", "expected a boolean"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "from 0 to 20"),
        ({"top_logprobs": 1}, "top_logprobs", "needs 'logprobs'"),
        ({"temprature": 1}, "temprature", "did you mean 'temperature'?"),
        ({"top_k": 40}, "top_k", "'top_k' is not supported by this server; leave it out."),
        ({"min_p": 0.1}, "min_p", "'min_p' is not supported by this server"),
        ({"repetition_penalty": 1.1}, "repetition_penalty", "not supported by this server"),
        ({"tools": [{"a": True, "b": None}]}, "tools", '(got [{"a": true, "b": null}])'),
        ({"tools": [{}], "tool_choice": "auto"}, "tools", "not supported here"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content", "Missing"),
        ({"x" * 5000: 1}, "x" * 100, "leave it out"),
        ({"model": None}, "model", "GET /v1/models"),
        ({"model": 3}, "model", "expected a string"),
        ({"messages": None}, "messages", "Missing required parameter"),
        ({"messages": "hi"}, "messages", "expected an array"),
        ({"messages": []}, "messages", "at least one message"),
        ({"messages": HELLO * 2049}, "messages", "Expected an array with maximum length 2048"),
        ({"repetition_penalty": 0}, "repetition_penalty", "leave it out"),
        ({"top_k": 1}, "top_k", "leave it out"),
        ({"n_predict": 0}, "n_predict", "leave it out"),
        ({"messages": ["hi"]}, "messages[0]", "expected an object"),
        ({"messages": [{"content": "hi"}]}, "messages[0].role", "Missing"),
        ({"messages": [{"role": "robot", "content": "hi"}]}, "messages[0].role", "system, developer, user"),
        ({"messages": [{"role": "tool", "content": "hi"}]}, "messages[0].role", "call no tools"),
        ({"messages": [*HELLO, {"role": "user"}]}, "messages[1].content", "Missing"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content", "expected a string"),
        ({"messages": [{"role": "user", "content": ["a"]}]}, "messages[0].content[0]", "expected an object"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "messages[0].content[0].type",
            '"image_url" are not supported; "text" is',
        ),
        ({"messages": [{"role": "user", "content": "a", "name": 3}]}, "messages[0].name", "expected a string"),
        (
            {"messages": [{"role": "assistant", "content": "a", "tool_calls": [{}]}]},
            "messages[0].tool_calls",
            "not supported",
        ),
    ],
)
def test_a_wrong_field_is_named_with_what_it_should_be(fields: dict[str, Any], param: str, words: str) -> None:
    error = refusal(**fields)
    assert error.param == param
    assert words in str(error)
    assert len(str(error)) < 300


def test_messages_become_plain_text() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    answered: dict[str, Any] = {
        "role": "assistant",
        "content": "c",
        "refusal": None,
        "tool_calls": None,
        "annotations": [],
    }
    asked = read(messages=[{"role": "developer", "content": parts, "name": "me"}, answered])
    assert asked.messages == [
        {"role": "system", "content": "a\nb", "name": "me"},
        {"role": "assistant", "content": "c"},
    ]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "line 1 column 1"),
        (b'{"model": "a",}', "line 1 column"),
        (b'{\n"model": "a"\n"n": 1}', "line 3 column 1"),
        (b'{"n": NaN}', "NaN is no JSON"),
        (b'{"n": -Infinity}', "-Infinity is no JSON"),
        (b'{"n": ' + b"9" * 5000 + b"}", "digits"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
        (b'{"a": ' * 100_000, "nested too deeply"),
        (b'{"a": "\xff"}', "not UTF-8 at byte 7"),
        ('{"a": "é"}'.encode("utf-16"), "not UTF-8"),
        (rb'{"a": "\ud800"}', "surrogate"),
        (b'["model"]', "must be a JSON object"),
        (b"null", "must be a JSON object"),
    ],
)
def test_a_body_that_is_no_json_object_is_told_where(body: bytes, words: str) -> None:
    with pytest.raises(Refusal, match=words):
        asyncio.run(parse_json(body))


def test_json_that_is_unusual_but_right() -> None:
    assert asyncio.run(parse_json(b'\xef\xbb\xbf {"a": 1, "a": 2}')) == {"a": 2}
    assert asyncio.run(parse_json(rb'{"a": "\ud83d\ude00"}')) == {"a": "\U0001f600"}


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
_names = st.sampled_from(
    [
        *("messages", "model", "n", "seed", "stop", "stream", "stream_options", "logprobs", "top_logprobs"),
        *("max_tokens", "temperature", "top_p", "tools", "response_format", "logit_bias", "metadata", "audio"),
    ]
)


def status_of(body: bytes) -> int:
    """What a body is answered with, as far as it depends on the body alone."""
    try:
        json.dumps(chat_request(asyncio.run(parse_json(body))).fields(7))
    except SlabwireError as error:
        return error.http_status
    return 200


@given(st.dictionaries(_names, _json) | st.dictionaries(st.text(), _json))
def test_no_body_does_more_than_be_refused(fields: dict[str, Any]) -> None:
    body = {"model": "smol", "messages": HELLO, **fields}
    assert status_of(json.dumps(body).encode()) in (200, 400)


@given(st.binary(max_size=60))
def test_no_bytes_do_more_than_be_refused(body: bytes) -> None:
    assert status_of(body) == 400


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": "a" * (MOST_CONTENT_NBYTES + 1)}],
        [{"role": "user", "content": "a" * (MOST_CONTENT_NBYTES // 2 + 1)}] * 2,
        [{"role": "user", "content": [{"type": "text", "text": "a" * MOST_CONTENT_NBYTES}] * 2}],
    ],
    ids=["one", "together", "in parts"],
)
def test_more_text_than_any_model_looks_at_goes_no_further(messages: list[dict[str, Any]]) -> None:
    with pytest.raises(PromptTooLong, match=r"maximum context length is.*hold more than 262144 bytes of text"):
        read(messages=messages)
    assert read(messages=[{"role": "user", "content": "a" * MOST_CONTENT_NBYTES}])
