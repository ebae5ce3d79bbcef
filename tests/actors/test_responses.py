"""Whole answers in memory: which requests are the same one, and what is kept, for how long."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slabwire.actors.completion import BadMessages
from slabwire.actors.prompt_cache.responses import Responses, canonical, is_deterministic

QUESTION = [{"role": "user", "content": "Why?"}]
LAST = {"finish_reason": "stop", "prompt_tokens": 3, "completion_tokens": 1, "cached_tokens": 0}


def answer(text: str = "So.") -> list[dict[str, Any]]:
    return [{"prompt_tokens": 3}, {"text": text, "tokens": 1}, LAST]


def found(responses: Responses, key: bytes, now_s: float = 0.0) -> list[dict[str, Any]] | None:
    items = responses.find(key, now_s)
    return None if items is None else list(items)


def spacious() -> Responses:
    return Responses(capacity_bytes=1 << 20, most=100, ttl_s=60.0)


# -- names of requests -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("temperature", "seed"), [(0.0, None), (0, None), (-0.0, None), (1.0, 5), (0.7, 0), (0.0, 1)])
def test_requests_with_one_answer(temperature: float, seed: int | None) -> None:
    assert is_deterministic(temperature, seed)


@pytest.mark.parametrize("temperature", [1.0, 0.001, 2.0])
def test_requests_with_many_answers(temperature: float) -> None:
    assert not is_deterministic(temperature, None)


def test_defaults_are_filled_in() -> None:
    spelt_out = canonical(QUESTION, max_tokens=None, temperature=1.0, top_p=1.0, seed=None, stop=None, logprobs=None)
    assert canonical(QUESTION) == spelt_out == canonical(QUESTION, stop=[])
    assert len(spelt_out) == 32


def test_numbers_of_one_value_are_one() -> None:
    assert canonical(QUESTION, temperature=0) == canonical(QUESTION, temperature=0.0)
    assert canonical(QUESTION, temperature=0.0) == canonical(QUESTION, temperature=-0.0)
    assert canonical(QUESTION, top_p=1) == canonical(QUESTION)


def test_the_order_of_keys_does_not_matter() -> None:
    turned = [{"content": "Why?", "role": "user"}]
    assert canonical(turned) == canonical(QUESTION)


def test_each_field_matters() -> None:
    fields: list[dict[str, Any]] = [
        {},
        {"max_tokens": 5},
        {"max_tokens": 0},
        {"temperature": 0.5},
        {"top_p": 0.5},
        {"seed": 0},
        {"seed": 5},
        {"stop": ["a"]},
        {"stop": ["a", "b"]},
        {"stop": ["ab"]},
        {"stop": [""]},
        {"logprobs": 0},
        {"logprobs": 5},
    ]
    assert len({canonical(QUESTION, **each) for each in fields}) == len(fields)


def test_the_order_of_messages_matters() -> None:
    one, other = {"role": "user", "content": "a"}, {"role": "user", "content": "b"}
    assert len({canonical(each) for each in ([one], [other], [one, other], [other, one], [])}) == 5


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(PLAIN, PLAIN)
def test_two_conversations_have_one_name_only_if_they_are_the_same(one: Any, other: Any) -> None:
    same = repr(_sorted(one)) == repr(_sorted(other))
    assert (canonical([{"content": one}]) == canonical([{"content": other}])) == same


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(each) for each in value] if isinstance(value, list) else value


def test_a_conversation_of_other_things_than_text() -> None:
    with pytest.raises(BadMessages, match="bytes"):
        canonical([{"role": "user", "content": b"Why?"}])


# -- what is kept ------------------------------------------------------------------------------------------------------


def test_an_answer_comes_back_as_it_was_made() -> None:
    responses = spacious()
    chosen = {"token": "é", "bytes": [195, 169], "logprob": -0.1234567890123, "top": []}
    items = [*answer("Sé")[:2], {"text": "", "tokens": 2, "logprobs": [chosen, chosen]}, LAST]
    responses.keep(b"a", items, 0.0)
    assert found(responses, b"a") == items
    assert found(responses, b"a") == items
    assert found(responses, b"b") is None
    stats = responses.stats()
    assert (stats["answers"], stats["stored"], stats["hits"], stats["misses"]) == (1, 1, 2, 1)
    assert stats["bytes"] > 0


@pytest.mark.parametrize("items", [[], answer()[:1], answer()[:2], [*answer()[:2], {**LAST, "finish_reason": None}]])
def test_half_an_answer_is_not_kept(items: list[dict[str, Any]]) -> None:
    responses = spacious()
    responses.keep(b"a", items, 0.0)
    assert found(responses, b"a") is None
    responses.keep(b"a", answer(), 0.0)
    responses.keep(b"a", items, 1.0)
    assert found(responses, b"a", 1.0) == answer()
    assert responses.stats()["stored"] == 1


def test_answers_age_from_when_they_were_made() -> None:
    responses = spacious()
    responses.keep(b"a", answer(), 100.0)
    assert found(responses, b"a", now_s=159.9) == answer()
    assert found(responses, b"a", now_s=160.0) is None
    stats = responses.stats()
    assert (stats["expired"], stats["hits"], stats["misses"], stats["answers"], stats["bytes"]) == (1, 1, 1, 0, 0)
    assert found(responses, b"a", now_s=0.0) is None
    assert responses.stats()["expired"] == 1


def test_a_newer_answer_takes_the_place_of_an_older_one() -> None:
    responses = spacious()
    responses.keep(b"a", answer("one"), 0.0)
    responses.keep(b"a", answer("two"), 50.0)
    assert found(responses, b"a", now_s=109.0) == answer("two")
    assert (responses.stats()["answers"], responses.stats()["evictions"]) == (1, 0)


def test_what_was_used_longest_ago_makes_room() -> None:
    responses = Responses(capacity_bytes=1 << 20, most=2, ttl_s=60.0)
    responses.keep(b"a", answer(), 0.0)
    responses.keep(b"b", answer(), 0.0)
    assert found(responses, b"a")
    responses.keep(b"c", answer(), 0.0)
    assert found(responses, b"b") is None
    assert found(responses, b"a")
    assert found(responses, b"c")
    assert responses.stats()["evictions"] == 1


def test_bytes_are_bounded_too() -> None:
    responses = spacious()
    responses.keep(b"a", answer("x" * 100), 0.0)
    one = responses.nbytes
    responses = Responses(capacity_bytes=3 * one, most=100, ttl_s=60.0)
    for key in (b"a", b"b", b"c", b"d"):
        responses.keep(key, answer("x" * 100), 0.0)
    assert responses.nbytes == 3 * one
    assert found(responses, b"a") is None
    responses.keep(b"e", answer("x" * one), 0.0)
    assert found(responses, b"e")
    assert responses.stats()["answers"] == 2


def test_an_answer_larger_than_everything_takes_nobodys_place() -> None:
    responses = Responses(capacity_bytes=1000, most=100, ttl_s=60.0)
    responses.keep(b"a", answer(), 0.0)
    responses.keep(b"b", [*({"text": "x" * 100, "tokens": 1} for _ in range(10)), LAST], 0.0)
    assert found(responses, b"b") is None
    assert found(responses, b"a") == answer()
    assert responses.stats()["evictions"] == 0


@pytest.mark.parametrize(("capacity", "most", "ttl_s"), [(0, 10, 60.0), (1000, 0, 60.0), (1000, 10, 0.0)])
def test_limits_of_nothing_keep_nothing(capacity: int, most: int, ttl_s: float) -> None:
    responses = Responses(capacity, most, ttl_s)
    responses.keep(b"a", answer(), 0.0)
    assert found(responses, b"a") is None
    assert responses.stats()["bytes"] == 0


STEPS = st.tuples(st.sampled_from("abcdef"), st.sampled_from(["find", "keep"]), st.integers(0, 60), st.integers(0, 4))


@settings(max_examples=100, deadline=None)
@given(st.lists(STEPS, max_size=60))
def test_it_remembers_like_a_list_that_is_looked_through(steps: list[tuple[str, str, int, int]]) -> None:
    responses, listed, now_s = Responses(capacity_bytes=400, most=3, ttl_s=10.0), Listed(), 0.0
    for name, verb, length, later in steps:
        now_s += later
        key = name.encode()
        if verb == "find":
            assert found(responses, key, now_s) == listed.find(key, now_s)
        else:
            items = answer("x" * length)
            responses.keep(key, items, now_s)
            listed.keep(key, items, now_s, _packed_nbytes(items))
        assert responses.nbytes == sum(each[3] for each in listed.kept) <= 400
        assert responses.stats()["answers"] == len(listed.kept) <= 3


def _packed_nbytes(items: list[dict[str, Any]]) -> int:
    alone = spacious()
    alone.keep(b"alone", items, 0.0)
    return alone.nbytes


class Listed:
    """(key, items, made at, bytes), what was used longest ago first."""

    def __init__(self) -> None:
        self.kept: list[tuple[bytes, list[dict[str, Any]], float, int]] = []

    def find(self, key: bytes, now_s: float) -> list[dict[str, Any]] | None:
        known = [each for each in self.kept if each[0] == key]
        self.kept = [each for each in self.kept if each[0] != key]
        fresh = [each for each in known if now_s - each[2] < 10.0]
        self.kept += fresh
        return fresh[0][1] if fresh else None

    def keep(self, key: bytes, items: list[dict[str, Any]], now_s: float, nbytes: int) -> None:
        self.kept = [*(each for each in self.kept if each[0] != key), (key, items, now_s, nbytes)]
        while len(self.kept) > 3 or sum(each[3] for each in self.kept) > 400:
            self.kept.pop(0)
