"""The tree of pages: longest common prefixes, against a search through everything that is still held."""

from __future__ import annotations

import gc
import random
import weakref
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from slabwire import MessageError
from slabwire.actors.completion import PAGE_TOKENS
from slabwire.actors.prompt_cache.prefixes import MOST_PAGES, ROOT_KEY, Prefixes, page_key


@dataclass(eq=False)
class Rows:
    """What stands for keys and values: the tokens of the whole prompt up to the end of the page."""

    tokens: tuple[int, ...]
    first: int
    nbytes: int = 10


def run(start: int, length: int = PAGE_TOKENS) -> list[int]:
    return list(range(start, start + length))


def keep(prefixes: Prefixes[Rows], prompt: list[int]) -> list[bytes | None]:
    """Keeps the pages of a prompt, one after the other, as a model does."""
    keys: list[bytes | None] = []
    for at in range(0, len(prompt), PAGE_TOKENS):
        parent = keys[-1] if keys else ROOT_KEY
        if parent is None:
            break
        upto = prompt[: at + PAGE_TOKENS]
        keys.append(prefixes.keep(parent, upto[at:], Rows(tuple(upto), at)))
    return keys


def known(prefixes: Prefixes[Rows], prompt: list[int]) -> int:
    """For how many tokens there are rows, each of which must be of these tokens."""
    at = 0
    for valid, rows in prefixes.longest(prompt):
        assert rows.first == at
        assert list(rows.tokens[: at + valid]) == prompt[: at + valid]
        assert 1 <= valid <= PAGE_TOKENS
        at += valid
    return at


def spacious() -> Prefixes[Rows]:
    return Prefixes(capacity_bytes=1 << 20)


def test_names_are_chained_hashes() -> None:
    first = blake2b(np.array([1, 2, -3], "<i4").tobytes(), digest_size=16).digest()
    second = blake2b(first + np.array([70_000], "<i4").tobytes(), digest_size=16).digest()
    assert page_key(ROOT_KEY, [1, 2, -3]) == first
    assert page_key(first, [70_000]) == second


def test_models_do_not_share_pages() -> None:
    ours, theirs = Rows((), 0), Rows((), 0)
    prefixes = spacious()
    assert prefixes.keep(b"ours", run(0), ours, b"ours") == page_key(b"ours", run(0))
    assert prefixes.longest(run(0), b"theirs") == []
    prefixes.keep(b"theirs", run(0), theirs, b"theirs")
    assert prefixes.longest(run(0), b"ours") == [(PAGE_TOKENS, ours)]
    assert prefixes.longest(run(0), b"theirs") == [(PAGE_TOKENS, theirs)]
    assert prefixes.shed(1) == 1
    assert prefixes.longest(run(0), b"theirs") == [(PAGE_TOKENS, theirs)]
    assert prefixes.longest(run(0), b"ours") == []
    assert prefixes.shed(5) == 1


def test_nothing_is_known_at_first() -> None:
    prefixes = spacious()
    assert prefixes.longest([1, 2, 3]) == []
    assert prefixes.longest([]) == []
    assert prefixes.stats()["misses"] == 2


def test_pages_are_found_in_order() -> None:
    prefixes, prompt = spacious(), run(0, 100)
    keys = keep(prefixes, prompt)
    assert len(set(keys)) == 4
    assert [(valid, rows.first) for valid, rows in prefixes.longest(prompt)] == [(32, 0), (32, 32), (32, 64), (4, 96)]
    stats = prefixes.stats()
    assert (stats["pages"], stats["bytes"], stats["hits"], stats["tokens_served"]) == (4, 40, 1, 100)


@pytest.mark.parametrize("shared", [1, 5, 31, 32, 33, 63, 64, 65, 99, 100])
def test_a_prompt_that_goes_on_otherwise_gets_the_rows_before(shared: int) -> None:
    prefixes, prompt = spacious(), run(0, 100)
    keep(prefixes, prompt)
    assert known(prefixes, prompt[:shared]) == shared
    assert known(prefixes, prompt[:shared] + run(5000, 70)) == shared
    assert known(prefixes, prompt + run(100, 100)) == 100


def test_the_child_that_begins_most_alike_is_found_among_many() -> None:
    prefixes, dice = spacious(), random.Random(1)
    prompts = [[dice.randrange(3) for _ in range(PAGE_TOKENS)] for _ in range(300)]
    for prompt in prompts:
        keep(prefixes, prompt)
    for _ in range(300):
        wanted = [dice.randrange(3) for _ in range(PAGE_TOKENS)]
        assert known(prefixes, wanted) == max(common(wanted, each) for each in prompts)


def common(left: Any, right: Any) -> int:
    differ = (index for index, (one, other) in enumerate(zip(left, right, strict=False)) if one != other)
    return next(differ, min(len(left), len(right)))


def test_a_last_page_grows() -> None:
    prefixes = spacious()
    dead = [weakref.ref(prefixes.longest(run(0, 40))[1][1]) for _ in range(1) if keep(prefixes, run(0, 40))]
    keep(prefixes, run(0, 50))
    assert dead[0]() is None
    assert known(prefixes, run(0, 64)) == 50
    keep(prefixes, run(0, 64))
    stats = prefixes.stats()
    assert (stats["pages"], stats["bytes"], stats["evictions"]) == (2, 20, 0)
    assert known(prefixes, run(0, 64)) == 64


def test_what_a_fuller_page_holds_is_not_stored_again() -> None:
    prefixes = spacious()
    keep(prefixes, run(0, 64))
    assert keep(prefixes, run(0, 40))[1] == page_key(page_key(ROOT_KEY, run(0)), run(32, 8))
    assert prefixes.stats()["pages"] == 2


def test_two_endings_stand_side_by_side() -> None:
    prefixes = spacious()
    keep(prefixes, [1, 2, 3])
    keep(prefixes, [1, 2, 4, 5])
    assert prefixes.stats()["pages"] == 2
    assert known(prefixes, [1, 2, 3, 9]) == 3
    assert known(prefixes, [1, 2, 4, 5]) == 4
    assert known(prefixes, [1, 2, 9]) == 2


def test_the_same_page_twice_is_one() -> None:
    prefixes = spacious()
    first = keep(prefixes, run(0, 70))
    (held, *_) = [rows for _, rows in prefixes.longest(run(0, 70))]
    assert keep(prefixes, run(0, 70)) == first
    assert prefixes.stats()["pages"] == 3
    assert prefixes.longest(run(0, 70))[0][1] is held


def test_pages_follow_full_pages_alone() -> None:
    prefixes = spacious()
    (partial,) = keep(prefixes, run(0, 31))
    assert partial is not None
    assert prefixes.keep(partial, [1], Rows((), 0)) is None
    assert prefixes.keep(b"unknown", [1], Rows((), 0)) is None
    assert prefixes.stats()["pages"] == 1


@pytest.mark.parametrize("tokens", [[], run(0, 33), [1 << 31], [-(1 << 31) - 1], [1.5], ["a"]])
def test_tokens_that_make_no_page(tokens: list[Any]) -> None:
    prefixes = spacious()
    with pytest.raises(MessageError):
        prefixes.keep(ROOT_KEY, tokens, Rows((), 0))
    assert prefixes.stats()["pages"] == 0


# -- limits ------------------------------------------------------------------------------------------------------------


def test_the_page_used_longest_ago_makes_room() -> None:
    prefixes: Prefixes[Rows] = Prefixes(capacity_bytes=30)
    for start in (100, 200, 300):
        keep(prefixes, run(start))
    assert known(prefixes, run(100)) == 32
    keep(prefixes, run(400))
    assert [known(prefixes, run(start)) for start in (100, 200, 300, 400)] == [32, 0, 32, 32]
    assert keep(prefixes, run(300)) == [page_key(ROOT_KEY, run(300))]
    assert known(prefixes, run(100)) == 32
    keep(prefixes, run(500))
    assert known(prefixes, run(400)) == 0
    assert prefixes.stats()["evictions"] == 2


def test_pages_go_before_those_that_they_follow() -> None:
    prefixes: Prefixes[Rows] = Prefixes(capacity_bytes=1 << 20, most_pages=4)
    keep(prefixes, run(0, 4 * PAGE_TOKENS))
    for at in range(1, 5):
        keep(prefixes, run(1000 * at))
        assert known(prefixes, run(0, 4 * PAGE_TOKENS)) == (4 - at) * PAGE_TOKENS
        for other in range(1, at + 1):
            known(prefixes, run(1000 * other))


def test_the_pages_before_a_new_one_stay() -> None:
    prefixes: Prefixes[Rows] = Prefixes(capacity_bytes=1 << 20, most_pages=3)
    keys = keep(prefixes, run(0, 5 * PAGE_TOKENS))
    assert [key is None for key in keys] == [False, False, False, True]
    assert known(prefixes, run(0, 5 * PAGE_TOKENS)) == 3 * PAGE_TOKENS
    keys = keep(prefixes, run(0, 2 * PAGE_TOKENS) + run(7000))
    assert None not in keys
    assert known(prefixes, run(0, 3 * PAGE_TOKENS)) == 2 * PAGE_TOKENS


def test_a_page_larger_than_everything_drives_out_nothing() -> None:
    prefixes: Prefixes[Rows] = Prefixes(capacity_bytes=30)
    keep(prefixes, run(0))
    assert prefixes.keep(ROOT_KEY, run(100), Rows((), 0, nbytes=31)) is None
    assert known(prefixes, run(0)) == 32


def test_rows_for_leases_bound_the_pages() -> None:
    prefixes = spacious()
    for start in range(0, 500_000, 1000):
        keep(prefixes, run(start))
    assert prefixes.stats()["pages"] == MOST_PAGES


def test_it_works_on_arrays_without_copying_them() -> None:
    prefixes: Prefixes[Any] = Prefixes(capacity_bytes=1 << 20)
    kept = np.zeros((2, 32))
    prefixes.keep(ROOT_KEY, run(0), kept)
    assert prefixes.longest(run(0))[0][1] is kept
    assert prefixes.nbytes == kept.nbytes


# -- against a search through everything -------------------------------------------------------------------------------


TOKENS = st.integers(0, 1)
PIECES = st.lists(
    st.sampled_from([[0] * 32, [1] * 32, [0] * 16 + [1] * 16, [0] * 31, [1] * 5, [0, 1], [1]]), max_size=5
)
PROMPTS = st.builds(lambda pieces, tail: [*chain(*pieces), *tail], PIECES, st.lists(TOKENS, max_size=34))


class Search(RuleBasedStateMachine):
    """Keeps pages of random prompts in a small tree, beside weak references to all that were ever kept."""

    def __init__(self) -> None:
        super().__init__()
        self.prefixes: Prefixes[Rows] = Prefixes(capacity_bytes=200, most_pages=12)
        self.given: list[weakref.ref[Rows]] = []
        self.keys: list[bytes] = []

    def held(self) -> list[Rows]:
        return [rows for each in self.given if (rows := each()) is not None]

    def offer(self, parent: bytes, prompt: list[int], at: int, nbytes: int) -> bytes | None:
        rows = Rows(tuple(prompt[: at + PAGE_TOKENS]), at, nbytes)
        self.given.append(weakref.ref(rows))
        return self.prefixes.keep(parent, prompt[at : at + PAGE_TOKENS], rows)

    @rule(prompt=PROMPTS, nbytes=st.sampled_from([1, 10, 60, 201]))
    def keep(self, prompt: list[int], nbytes: int) -> None:
        parent = ROOT_KEY
        for at in range(0, len(prompt), PAGE_TOKENS):
            key = self.offer(parent, prompt, at, nbytes)
            if key is None:
                assert nbytes > 200 or len(self.held()) <= at // PAGE_TOKENS + 1
                break
            assert common(prompt, self.longest_held(prompt)) >= min(len(prompt), at + PAGE_TOKENS)
            assert key == page_key(parent, prompt[at : at + PAGE_TOKENS])
            self.keys.append(key)
            parent = key

    @rule(prompt=PROMPTS)
    def look(self, prompt: list[int]) -> None:
        assert known(self.prefixes, prompt) == common(prompt, self.longest_held(prompt))

    def longest_held(self, prompt: list[int]) -> tuple[int, ...]:
        return max((rows.tokens for rows in self.held()), key=lambda each: common(prompt, each), default=())

    @precondition(lambda self: self.keys)
    @rule(data=st.data())
    def keep_after_a_page_that_may_be_gone(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(self.keys))
        if key not in self.prefixes._pages:
            assert self.prefixes.keep(key, [1, 2, 3], Rows((), 0)) is None

    @invariant()
    def counts_are_right(self) -> None:
        held = self.held()
        stats = self.prefixes.stats()
        assert stats["pages"] == len(held) == len(self.prefixes._pages) <= 12
        assert stats["bytes"] == sum(rows.nbytes for rows in held) <= 200

    @invariant()
    def the_pages_before_a_page_are_held(self) -> None:
        tokens = {rows.tokens for rows in self.held()}
        assert all(each[: len(each) - 1 - (len(each) - 1) % PAGE_TOKENS] in {*tokens, ()} for each in tokens)

    @invariant()
    def no_page_is_the_beginning_of_another(self) -> None:
        held = self.held()
        firsts = {(rows.first, rows.tokens) for rows in held}
        assert len(firsts) == len(held)
        for rows in held:
            beside = [each for each in held if each.first == rows.first and each is not rows]
            assert not any(each.tokens[: len(rows.tokens)] == rows.tokens for each in beside)


Search.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestSearch = Search.TestCase


@given(st.lists(PROMPTS, max_size=6))
@settings(max_examples=60, deadline=None)
def test_all_is_let_go_with_the_tree(prompts: list[list[int]]) -> None:
    prefixes = spacious()
    for prompt in prompts:
        keep(prefixes, prompt)
    held = [weakref.ref(page.payload) for page in prefixes._pages.values()]
    del prefixes
    gc.collect()
    assert all(each() is None for each in held)
