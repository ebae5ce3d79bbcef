"""The next token: likeliest or drawn, and how likely it was."""

from __future__ import annotations

from collections import Counter
from math import nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from slabwire.actors.completion import BadMessages
from slabwire.actors.llm.engine.sampler import BadLogits, Sampler, check_sampling, logprobs

VOCABULARY = 49152


def logits_of(*probabilities: float) -> NDArray[np.float32]:
    with np.errstate(divide="ignore"):
        return np.log(np.array(probabilities, np.float32))


def drawn(logits: NDArray[np.float32], count: int, temperature: float = 1.0, top_p: float = 1.0) -> Counter[int]:
    sampler = Sampler(temperature, top_p, seed=5)
    return Counter(sampler.choose(logits) for _ in range(count))


def like_a_model(seed: int = 1) -> NDArray[np.float32]:
    return np.random.default_rng(seed).gumbel(0, 2.5, VOCABULARY).astype(np.float32)


def test_the_likeliest_at_temperature_0() -> None:
    logits = like_a_model()
    assert {Sampler(0, 0.5).choose(logits) for _ in range(3)} == {int(logits.argmax())}
    assert Sampler(0.0).choose(logits_of(0.2, 0.4, 0.4)) == 1  # of equals the first


@pytest.mark.parametrize("temperature", [1e-320, 1e-12, 1e-5])
def test_almost_no_temperature_is_the_likeliest_too(temperature: float) -> None:
    logits = like_a_model()
    for top_p in (0.5, 1.0):
        assert Sampler(temperature, top_p, 3).choose(logits) == logits.argmax()


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 0.9), (2.0, 0.999), (1.0, 1e-9)])
def test_the_same_seed_gives_the_same_answer(temperature: float, top_p: float) -> None:
    rows = [like_a_model(seed) for seed in range(10)]
    first, second = Sampler(temperature, top_p, -7), Sampler(temperature, top_p, -7)
    assert [first.choose(row) for row in rows] == [second.choose(row) for row in rows]


def test_seeds_differ_and_none_is_ever_another() -> None:
    rows = [like_a_model(seed) for seed in range(20)]
    answers = {tuple(map(Sampler(seed=seed).choose, rows)) for seed in (0, 1, -1, 2**63 - 1, -(2**63), None, None)}
    assert len(answers) == 7


def test_tokens_come_as_often_as_they_are_likely() -> None:
    chances = np.array([0.5, 0.25, 0.15, 0.1, 0.0])
    counts = drawn(logits_of(*chances), 20_000)
    assert counts[4] == 0
    for token in range(4):  # five standard deviations
        assert counts[token] / 20_000 == pytest.approx(chances[token], abs=5 * np.sqrt(0.25 / 20_000))


def test_tokens_of_all_blocks_come_as_often_as_they_are_likely() -> None:
    chances = np.full(1000, 0.5 / 997)
    chances[[0, 255, 999]] = 0.2, 0.2, 0.1
    counts = drawn(logits_of(*chances), 20_000)
    for token in (0, 255, 999):
        assert counts[token] / 20_000 == pytest.approx(chances[token], abs=0.018)
    assert sum(counts.values()) - counts[0] - counts[255] - counts[999] == pytest.approx(10_000, abs=360)
    assert len(counts) > 950


def test_temperature_flattens() -> None:
    counts = drawn(logits_of(0.9, 0.1), 10_000, temperature=2.0)
    assert counts[1] / 10_000 == pytest.approx(0.25, abs=0.022)  # sqrt(0.1) / (sqrt(0.9) + sqrt(0.1))


@pytest.mark.parametrize(
    ("top_p", "expected"),
    [
        (0.3, {3}),
        (0.39, {3}),
        (0.41, {3, 1}),
        (0.69, {3, 1}),
        (0.71, {3, 1, 0}),
        (0.95, {3, 1, 0, 2}),
        (1.0, {0, 1, 2, 3}),
    ],
)
def test_the_nucleus_is_the_fewest_tokens(top_p: float, expected: set[int]) -> None:
    logits = logits_of(0.2, 0.3, 0.1, 0.4)
    assert set(drawn(logits, 400, top_p=top_p)) == expected


def test_a_nucleus_of_a_flat_distribution() -> None:
    logits = np.zeros(VOCABULARY, np.float32)
    assert len(drawn(logits, 50, top_p=0.5)) == 50
    assert len(drawn(logits, 50, top_p=1 - 1e-16)) == 50


vocabularies = arrays.arrays(np.float32, st.integers(1, 600), elements=st.floats(-40, 40, width=32))


@given(vocabularies, st.floats(0.01, 0.99), st.floats(0.1, 2), st.integers(0, 99))
def test_whatever_is_drawn_lies_in_the_nucleus(
    logits: NDArray[np.float32], top_p: float, temperature: float, seed: int
) -> None:
    token = Sampler(temperature, top_p, seed).choose(logits)
    weights = np.exp((logits.astype(np.float64) - logits.max()) / temperature)
    likelier = weights[weights > weights[token] * (1 + 1e-4)].sum() / weights.sum()  # equals, but for rounding, are in
    assert likelier < top_p + 1e-5


def test_a_token_that_cannot_come_never_does() -> None:
    logits = np.full(1000, -np.inf, np.float32)
    logits[[3, 700]] = 1.0, 1.5
    for top_p in (0.99, 1.0):
        assert set(drawn(logits, 200, top_p=top_p)) == {3, 700}


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_logits_that_are_no_numbers(wrong: float) -> None:
    logits = like_a_model()
    logits[77] = wrong
    for settle in (
        lambda: Sampler(0).choose(logits),
        lambda: Sampler(1).choose(logits),
        lambda: logprobs(logits, 0, 1),
    ):
        with pytest.raises(BadLogits, match="at token 77"):
            settle()
    with pytest.raises(BadLogits):
        Sampler(1).choose(np.full(4, -np.inf, np.float32))


# -- logprobs --------------------------------------------------------------------------------------------------------


def test_logprobs_are_of_the_models_own_distribution() -> None:
    logits = like_a_model()
    exact = logits.astype(np.float64)
    exact -= np.log(np.exp(exact - exact.max()).sum()) + exact.max()
    logprob, top = logprobs(logits, 123, 20)
    assert logprob == pytest.approx(exact[123], abs=1e-5)
    assert [token for token, _ in top] == list(np.argsort(-exact)[:20])
    assert [value for _, value in top] == pytest.approx(sorted(exact)[:-21:-1], abs=1e-5)
    assert logprobs(logits, 123, 0) == (logprob, [])


def test_of_equals_the_first() -> None:
    logits = logits_of(0.1, 0.2, 0.1, 0.2, 0.1, 0.2, 0.1)
    _, top = logprobs(logits, 0, 4)
    assert [token for token, _ in top] == [1, 3, 5, 0]
    assert len(logprobs(logits, 0, 20)[1]) == 7


# -- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings", [(0, 1, None), (2, 1e-300, 0), (0.7, 0.9, -(2**63)), (1.0, 1.0, 2**63 - 1), (1e-320, 1, 5)]
)
def test_settings_that_are_taken(settings: tuple[float, float, int | None]) -> None:
    check_sampling(*settings)
    Sampler(*settings).choose(like_a_model())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ((-0.1, 1, None), "temperature is -0.1; give a number from 0 to 2"),
        ((2.1, 1, None), "temperature is 2.1"),
        ((nan, 1, None), "temperature is nan"),
        (("1", 1, None), "temperature is '1'"),
        ((True, 1, None), "temperature is True"),
        ((None, 1, None), "temperature is None"),
        ((1, 0, None), "top_p is 0; give a number above 0 and up to 1"),
        ((1, -1, None), "top_p is -1"),
        ((1, 1.5, None), "top_p is 1.5"),
        ((1, nan, None), "top_p is nan"),
        ((1, 1, 2**63), "seed is 9223372036854775808; give a whole number of 64 bits, or null"),
        ((1, 1, 1.0), "seed is 1.0"),
        ((1, 1, "x" * 1000), "seed is 'x{39}; give"),
        ((1, 1, False), "seed is False"),
    ],
)
def test_settings_that_are_refused(settings: tuple[object, object, object], words: str) -> None:
    with pytest.raises(BadMessages, match=words):
        check_sampling(*settings)
