"""The choice of the next token from a model's logits."""

from __future__ import annotations

from math import isfinite
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from ....runtime.errors import SlabwireError
from ...completion import BadMessages

HIGHEST_TEMPERATURE = 2.0  # OpenAI's limit
# Below this, two float32 logits that differ at all differ by so much that the likeliest is always taken.
_LOWEST_TEMPERATURE = 1e-6
# Weights that are summed before one of them is looked at: about the root of a vocabulary's size.
_BLOCK = 256
_INT64 = np.iinfo(np.int64)

Logits = NDArray[np.float32]


class BadLogits(SlabwireError):
    """Logits that are no numbers: the weights, or the keys and values, that they came from are damaged."""

    code = "bad_logits"


def check_sampling(temperature: object, top_p: object, seed: object) -> None:
    """Raises `BadMessages`, with the setting's name, for what `Sampler` does not take."""
    if not _lies(temperature, 0, HIGHEST_TEMPERATURE):
        _reject("temperature", temperature, f"a number from 0 to {HIGHEST_TEMPERATURE:g}")
    if not _lies(top_p, 0, 1) or not top_p:
        _reject("top_p", top_p, "a number above 0 and up to 1")
    if seed is not None and not (_lies(seed, _INT64.min, _INT64.max) and isinstance(seed, int)):
        _reject("seed", seed, "a whole number of 64 bits, or null")


def _lies(value: object, low: float, high: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _reject(name: str, value: object, wanted: str) -> NoReturn:
    raise BadMessages(f"{name} is {repr(value)[:40]}; give {wanted}")


class Sampler:
    """Chooses one answer's tokens: the likeliest at temperature 0, else at random, by temperature and nucleus.

    With a `seed` the same logits give the same choices on the same machine. The settings are those that
    `check_sampling` takes.
    """

    def __init__(self, temperature: float = 1.0, top_p: float = 1.0, seed: int | None = None) -> None:
        self._temperature = np.float32(max(temperature, _LOWEST_TEMPERATURE)) if temperature else None
        self._top_p = top_p
        self._random = np.random.Generator(np.random.PCG64(None if seed is None else seed % 2**64))

    def choose(self, logits: Logits) -> int:
        """A token for `logits` (float32 [vocabulary]). Raises `BadLogits` for logits that are no numbers."""
        likeliest, peak = _peak(logits)
        if self._temperature is None:
            return likeliest
        weights = np.exp((logits - peak) / self._temperature)
        if self._top_p < 1:
            tokens = _nucleus(weights, self._top_p)
            return int(tokens[self._draw(weights[tokens])])
        # First one of the blocks, then one in it: a running sum of the whole vocabulary takes much longer.
        start = _BLOCK * self._draw(np.add.reduceat(weights, np.arange(0, len(weights), _BLOCK)))
        return start + self._draw(weights[start : start + _BLOCK])

    def _draw(self, weights: NDArray[np.float32]) -> int:
        """An index, each as likely as its weight says."""
        sums = np.cumsum(weights, dtype=np.float64)
        place = int(np.searchsorted(sums, self._random.random() * sums[-1], side="right"))
        # Should the product be rounded up to the sum itself: the last that has any weight.
        return min(place, int(np.searchsorted(sums, sums[-1])))


def _nucleus(weights: NDArray[np.float32], top_p: float) -> NDArray[np.intp]:
    """The fewest tokens that make up `top_p` of all weight (Holtzman et al., 2020, section 3.1), and the last's equals.

    Sorting a whole vocabulary takes long. Those above a cut hold the nucleus if they weigh enough, so the cut
    goes down by tens until they do; the heaviest token weighs 1.
    """
    wanted = top_p * float(weights.sum(dtype=np.float64))
    for cut in (0.1, 1e-2, 1e-3, 1e-4, 1e-5, 0.0):
        heavy = weights[weights >= cut]
        if heavy.sum(dtype=np.float64) >= wanted:
            break
    falling = np.sort(heavy)[::-1]
    # Where rounding leaves the sum below what is wanted: all of them.
    last = min(int(np.searchsorted(np.cumsum(falling, dtype=np.float64), wanted)), len(falling) - 1)
    return np.flatnonzero(weights >= falling[last])


def logprobs(logits: Logits, token: int, count: int) -> tuple[float, list[tuple[int, float]]]:
    """The natural logarithm of a token's probability, and the `count` likeliest tokens with theirs, likeliest first.

    Both are the model's own, before temperature and nucleus. `logits`: float32 [vocabulary].
    Raises `BadLogits` for logits that are no numbers.
    """
    _, peak = _peak(logits)
    # exp in float32 is many times as fast; its error of 1e-7 is less than a logit's own.
    base = float(peak) + float(np.log(np.exp(logits - peak).sum(dtype=np.float64)))
    return float(logits[token]) - base, [(each, float(logits[each]) - base) for each in _likeliest(logits, count)]


def _likeliest(logits: Logits, count: int) -> list[int]:
    """Of equals, those with the lower numbers."""
    if count == 0:
        return []
    count = min(count, len(logits))
    least = np.partition(logits, len(logits) - count)[-count]
    tokens = np.flatnonzero(logits >= least)
    order = np.argsort(-logits[tokens], kind="stable")[:count]
    return [int(each) for each in tokens[order]]


def _peak(logits: Logits) -> tuple[int, np.float32]:
    """The likeliest token and its logit; argmax finds a NaN before anything else."""
    likeliest = int(logits.argmax())
    peak = logits[likeliest]
    if not isfinite(peak):
        raise BadLogits(f"the model's logits hold {peak} at token {likeliest}; restart it, or check the model file")
    return likeliest, peak
