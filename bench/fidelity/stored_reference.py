"""A reference's distributions in a small file: every token of some probability, and one sum for all others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .divergence import Fidelity, log_softmax

# A token with less is counted with the others. For SmolLM2 that leaves 620 tokens of a position on average, 0.8 MB for
# 505 positions, and a divergence of 3e-3 comes out 1.5 % too small; with a tenth of it 0.4 %, for 2.5 MB. The likeliest
# 1024 tokens of every position would take 1.3 MB and lose 2.3 %.
LEAST_PROBABILITY = 1e-5
# Nothing left for the others, as a number with a logarithm.
_TINY = np.finfo(np.float64).tiny


@dataclass(frozen=True)
class StoredReference:
    """The distributions of the next token at n positions.

    `model`: SHA-256 of the GGUF file, in hexadecimal. `lengths` int32: how many of the positions each prompt has.
    `tokens` uint16 [n]: the prompts, one behind the other. `counts` uint16 [n]: how many entries each position has in
    `ids` uint16 and `log_probabilities` float16, the likeliest first. `log_rest` float32 [n]: the logarithm of what is
    left for all other tokens.

    Whatever falls into that rest counts as one outcome. Merging outcomes never enlarges a divergence (data-processing
    inequality), so what `fidelity` says is a lower bound of the exact one.
    """

    model: str
    lengths: NDArray[np.int32]
    tokens: NDArray[np.uint16]
    counts: NDArray[np.uint16]
    ids: NDArray[np.uint16]
    log_probabilities: NDArray[np.float16]
    log_rest: NDArray[np.float32]

    @classmethod
    def of(cls, model: str, prompts: Sequence[NDArray[np.int64]], logits: NDArray[np.float32]) -> StoredReference:
        """From the logits of all positions of all prompts, float32 [n, vocabulary of at most 65536]."""
        kept, values, rest = [], [], []
        for row in map(log_softmax, logits):
            order = np.argsort(-row, kind="stable")
            count = max(1, int((row >= np.log(LEAST_PROBABILITY)).sum()))
            kept.append(order[:count].astype(np.uint16))
            values.append(row[order[:count]].astype(np.float16))
            rest.append(_log_of_others(row, kept[-1]))
        return cls(
            model,
            np.array([len(each) for each in prompts], np.int32),
            np.concatenate(prompts).astype(np.uint16),
            np.array([len(each) for each in kept], np.uint16),
            np.concatenate(kept),
            np.concatenate(values),
            np.array(rest, np.float32),
        )

    @classmethod
    def load(cls, path: Path) -> StoredReference:
        with np.load(path, allow_pickle=False) as file:
            return cls(str(file["model"]), *(file[name] for name in _ARRAYS))

    def save(self, path: Path) -> None:
        """The same bytes for the same reference."""
        with open(path, "wb") as file:
            np.savez_compressed(file, model=np.array(self.model), **{name: getattr(self, name) for name in _ARRAYS})

    @property
    def prompts(self) -> list[NDArray[np.int64]]:
        return np.split(self.tokens.astype(np.int64), np.cumsum(self.lengths)[:-1])

    def fidelity(self, logits: NDArray[np.float32]) -> Fidelity:
        """Of another way's logits, float32 [n, vocabulary]."""
        kl, agrees = [], []
        for row, (ids, own, rest) in zip(map(log_softmax, logits), self._positions(), strict=True):
            reference, other = _outcomes(own, rest), _outcomes(row[ids], _log_of_others(row, ids))
            kl.append(np.exp(reference) @ (reference - other))
            agrees.append(row.argmax() == ids[0])
        return Fidelity(np.array(kl), np.array(agrees))

    def difference(self, logits: NDArray[np.float32]) -> float:
        """The largest difference of a stored log-probability: what another computer made of the same reference."""
        rows = zip(map(log_softmax, logits), self._positions(), strict=True)
        return max(float(np.abs(row[ids] - own).max()) for row, (ids, own, _) in rows)

    def _positions(self) -> Iterator[tuple[NDArray[np.uint16], NDArray[np.float64], float]]:
        ends = np.cumsum(self.counts, dtype=np.int64)
        for start, end, rest in zip(ends - self.counts, ends, self.log_rest, strict=True):
            yield self.ids[start:end], self.log_probabilities[start:end].astype(np.float64), float(rest)


_ARRAYS = ("lengths", "tokens", "counts", "ids", "log_probabilities", "log_rest")


def _outcomes(kept: NDArray[np.float64], rest: float) -> NDArray[np.float64]:
    """Log-probabilities of the tokens kept and of "any other", which add up to one also where they were rounded."""
    return log_softmax(np.append(kept, rest))


def _log_of_others(row: NDArray[np.float64], ids: NDArray[np.uint16]) -> float:
    others = np.exp(row)
    others[ids] = 0
    return float(np.log(max(others.sum(), _TINY)))
