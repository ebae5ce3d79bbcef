"""Actors whose memory tests look into."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np

from slabwire import Actor
from slabwire.shm import trimming
from slabwire.shm.block import loaned_block
from slabwire.shm.pool import Pool


def pool_of(actor: Actor) -> Pool:
    """The pool of the worker that an actor runs in, with what has ended taken note of."""
    pool: Pool = actor._binding._endpoint.pool  # type: ignore[union-attr]
    pool._reap()
    return pool


class Several(Actor):
    """Loans several tensors at once."""

    def detect(self, n: int) -> dict[str, Any]:
        """Boxes and scores of one block, which it names."""
        boxes, scores, none = self.loan_many(((n, 4), np.float32), (n, ml_dtypes.bfloat16), ((0, 3), np.int64))
        boxes[:], scores[:] = np.arange(4 * n).reshape(n, 4), 0.5
        block = loaned_block(scores)
        assert block is not None
        self.kept = [boxes, scores] if n == 7 else []
        place = [block.slab.identifier, block.index]
        return {"boxes": boxes, "scores": [scores[: n // 2], scores], "none": none, "block": place}

    def writeable(self) -> list[bool]:
        return [each.flags.writeable for each in self.kept]

    def out(self) -> int:
        return pool_of(self).blocks_out


class Scribbles(Actor):
    """Writes to what it has sent, by a view from before."""

    def sends(self, n: int) -> np.ndarray:
        loan = self.loan(n, np.int32)
        self.view = loan[:10]
        loan[:] = 7
        return loan

    def scribble(self) -> None:
        self.view[3] = 8
        del self.view

    def behave(self) -> None:
        del self.view

    def out(self) -> int:
        return pool_of(self).blocks_out


class Hoards(Actor):
    """Keeps a loan from its start on, and all that it gets."""

    def on_start(self) -> None:
        self.scratch = self.loan((100, 100), np.float64)
        self.kept: list[np.ndarray] = []

    def hoard(self, x: np.ndarray) -> int:
        self.kept.append(x[:1])
        return len(self.kept)


class Bursts(Actor):
    """Sends much at once, and tells of its pool. What lies idle for `idle_ns` is given back."""

    def __init__(self, idle_ns: int) -> None:
        trimming.IDLE_NS = idle_ns

    def burst(self, n: int) -> Iterator[np.ndarray]:
        for i in range(n):
            loan = self.loan((100_000,), np.uint8)
            loan[:] = i
            yield loan

    def stats(self) -> dict[str, int]:
        return pool_of(self).stats()


class Hogs(Actor):
    """Loans small blocks until there are no more, and keeps them."""

    def on_start(self) -> None:
        self.kept: list[np.ndarray] = []

    def hog(self) -> None:
        while True:
            self.kept.append(self.loan(900, np.uint8))

    def count(self) -> int:
        return len(self.kept)
