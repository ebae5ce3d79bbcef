"""What came of a question to a chat model, and when; and the figures of several that were asked at one time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from .contestant import BenchError

# A token may have no text of its own: the end of an answer, or the first bytes of a character. In some scripts and in
# pictures it takes three to make one.
_MOST_TOKENS_A_PIECE = 4


@dataclass(frozen=True)
class Answer:
    """`pieces` are the moments at which text came; `began_ns` is when it was asked for. Tokens are those of the usage.

    Moments are those of `time.monotonic_ns`, which all processes of a machine share.
    """

    began_ns: int
    pieces: list[int]
    text: str
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int

    @property
    def first_s(self) -> float:
        """From the question to the first text."""
        return (self.pieces[0] - self.began_ns) / 1e9

    @property
    def ended_ns(self) -> int:
        return self.pieces[-1]

    @property
    def gap_us(self) -> float:
        """The median of the times between two pieces of text."""
        return median(later - sooner for sooner, later in pairwise(self.pieces)) / 1e3

    def check(self, who: str) -> None:
        """Raises BenchError where what came is not what the usage says, or is too little to measure."""
        came, tokens = len(self.pieces), self.completion_tokens
        if came < 2 or not came <= tokens <= _MOST_TOKENS_A_PIECE * came:
            raise BenchError(f"{who}: {came} pieces came of an answer that has {tokens} tokens by its usage")


def decode_rate(answers: Sequence[Answer]) -> float:
    """Tokens a second of all together, from when the last answer began to when the first was complete.

    Tokens without text of their own count evenly for all pieces. 0.0 where the answers were never all in the making.
    """
    begin_ns = max(each.pieces[0] for each in answers)
    end_ns = min(each.ended_ns for each in answers)
    if end_ns <= begin_ns:
        return 0.0
    return sum(_tokens_within(each, begin_ns, end_ns) for each in answers) / (end_ns - begin_ns) * 1e9


def _tokens_within(answer: Answer, begin_ns: int, end_ns: int) -> float:
    came = sum(begin_ns < moment <= end_ns for moment in answer.pieces)
    return came * answer.completion_tokens / len(answer.pieces)
