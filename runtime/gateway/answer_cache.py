"""Answers that were given to requests with an idempotency key: for a while, so many, so large. Time is an argument."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from typing import NamedTuple

from ..errors import MessageError
from ..remote.protocol import Frame

MOST_ANSWERS = 1024
MOST_NBYTES = 64 << 20
# One that is larger would push out too many others.
LARGEST_NBYTES = 4 << 20
# Longer than a client goes on asking.
KEPT_FOR_NS = 600 * 1_000_000_000


class Answer(NamedTuple):
    """What was answered, to which request, and when."""

    fingerprint: bytes
    frames: list[bytes]
    at_ns: int

    @property
    def nbytes(self) -> int:
        return sum(map(len, self.frames))


class Remembered:
    """By name, the oldest first."""

    def __init__(self) -> None:
        self.nbytes = 0
        self._answers: OrderedDict[Hashable, Answer] = OrderedDict()

    def __len__(self) -> int:
        return len(self._answers)

    def find(self, name: Hashable, fingerprint: bytes, now_ns: int) -> list[bytes] | None:
        """The answer that was given, if it is remembered. Raises MessageError if it was given to another request."""
        self._forget(now_ns)
        answer = self._answers.get(name)
        if answer is None:
            return None
        check_same(answer.fingerprint, fingerprint)
        return answer.frames

    def keep(self, name: Hashable, fingerprint: bytes, frames: Sequence[Frame], now_ns: int) -> list[bytes]:
        """Remembers an answer, unless it is too large; returns its frames, which depend on nobody's memory any more."""
        answer = Answer(fingerprint, [bytes(each) for each in frames], now_ns)
        if name not in self._answers and answer.nbytes <= LARGEST_NBYTES:
            self._answers[name] = answer
            self.nbytes += answer.nbytes
            self._forget(now_ns)
        return answer.frames

    def _forget(self, now_ns: int) -> None:
        """What is too old, too much or too many."""
        while self._answers:
            oldest = next(iter(self._answers.values()))
            if (
                len(self._answers) <= MOST_ANSWERS
                and self.nbytes <= MOST_NBYTES
                and now_ns - oldest.at_ns < KEPT_FOR_NS
            ):
                return
            self.nbytes -= self._answers.popitem(last=False)[1].nbytes


def check_same(before: bytes, now: bytes) -> None:
    """Raises MessageError for a key that names two requests."""
    if before != now:
        raise MessageError("this idempotency key was given to another request, with other fields; choose a new key")
