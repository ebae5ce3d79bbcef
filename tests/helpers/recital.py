"""A network that is small enough to know by heart, and the engine over it: every answer can be worked out by hand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from slabwire.actors.llm.engine.engine import Engine
from slabwire.actors.llm.engine.sampler import Sampler
from slabwire.actors.llm.engine.sequence import Sequence
from slabwire.actors.llm.engine.slots import Slots
from slabwire.actors.llm.model_file.architecture import Architecture

VOCABULARY = 64
END = 0
CONTEXT = 256
SMALL = Architecture(
    layers=1,
    width=16,
    hidden=16,
    heads=1,
    kv_heads=1,
    head_dim=16,
    rope_theta=1e4,
    epsilon=1e-5,
    context=CONTEXT,
    vocabulary=VOCABULARY,
)


def next_token(tokens: list[int]) -> int:
    """What the network below says after these tokens; about every fortieth answer ends in a step."""
    mixed = 17
    for token in tokens:
        mixed = (mixed * 31 + token + 1) % 10007
    return mixed % 40 + 1 if mixed % 41 else END


class Recital:
    """Writes each token where its keys would lie, and judges by all that lies there, as attention does."""

    def __init__(self, slots: Slots) -> None:
        self.slots = slots
        self.chunks: list[int] = []
        self.batches: list[int] = []

    def _take_in(self, slot: int, tokens: list[int], done: int) -> NDArray[np.float32]:
        self.slots.hold(slot, done + len(tokens))
        rows = self.slots.array[:, slot, 0]
        rows[:, done : done + len(tokens)] = np.array(tokens, np.float32)[None, :, None]
        logits = np.zeros(VOCABULARY, np.float32)
        logits[next_token(rows[0, : done + len(tokens), 0].astype(int).tolist())] = 1
        return logits

    def prefill(self, slot: int, tokens: NDArray[np.int64], done: int) -> NDArray[np.float32]:
        self.chunks.append(len(tokens))
        return self._take_in(slot, tokens.tolist(), done)

    def decode(self, first: int, tokens: list[int], done: list[int]) -> NDArray[np.float32]:
        self.batches.append(len(tokens))
        rows = zip(tokens, done, strict=True)
        return np.stack([self._take_in(first + index, [token], length) for index, (token, length) in enumerate(rows)])


class Letters:
    """A tokenizer whose tokens are letters."""

    def token_bytes(self, token: int) -> bytes:
        return chr(64 + token).encode()

    def is_control(self, token: int) -> bool:
        return token == END


def recited(prompt: list[int], limit: int) -> tuple[str, str]:
    """The whole answer, and why it ends, as one would work it out by hand."""
    tokens, text = list(prompt), ""
    for _ in range(limit):
        token = next_token(tokens)
        if token == END:
            return text, "stop"
        tokens.append(token)
        text += chr(64 + token)
    return text, "length"


@contextmanager
def engine_of(count: int, *, exact: bool = False) -> Iterator[tuple[Engine, Recital]]:
    slots = Slots(SMALL, count, CONTEXT)
    network = Recital(slots)
    try:
        yield Engine(network, slots, Letters(), exact=exact), network  # type: ignore[arg-type]
    finally:
        slots.close()


def sequence_of(prompt: list[int], limit: int) -> Sequence:
    return Sequence(prompt, limit=limit, sampler=Sampler(0))
