"""What a chat model is asked: no two conversations begin alike, so that nothing remembered of one helps another."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

Messages = list[dict[str, Any]]

# The control token, "system" and the end of the line, and what little two numbers have in common.
MOST_IN_COMMON = 12
# Prime to the number of six-digit numbers: each comes once, and neighbours differ from their first digit on.
_STRIDE, _NUMBERS = 382_817, 1_000_000

_STORY = "Tell me a very long story about {}."
_ABOUT = (
    "a lighthouse keeper's daughter",
    "two brothers who build a boat",
    "a clock that runs backwards",
    "the last winter in a mountain village",
    "a fox who learns to read",
    "a train that never stops",
    "an island that no map shows",
    "a gardener and her hundred roses",
)
_DOCUMENT = (
    "The mail boat left the harbour at nine with forty sacks of letters, a piano and a crate of hens. "
    "Off the lighthouse the wind turned, and the captain let the sails be taken in. Below deck somebody played "
    "a slow waltz, and the hens went quiet. Towards noon the first of the islands came in sight, and on "
    "its hill stood the house of the woman to whom the piano was to go. She had waited for it for eleven years. "
)


class Conversations:
    """Makes them; each begins with a number of its own, of as many tokens as all others."""

    def __init__(self) -> None:
        self._numbers: Iterator[int] = count(1)

    def story(self) -> Messages:
        """Some 40 tokens whose answer goes on for long."""
        number = next(self._numbers)
        return [self._beginning(number), {"role": "user", "content": _STORY.format(_ABOUT[number % len(_ABOUT)])}]

    def document(self) -> Messages:
        """Some 512 tokens: a text and a question about it."""
        text = _DOCUMENT * 5
        question = f"{text}\nWhat is this about? Answer in one sentence."
        return [self._beginning(next(self._numbers)), {"role": "user", "content": question}]

    def _beginning(self, number: int) -> dict[str, Any]:
        return {"role": "system", "content": f"{number * _STRIDE % _NUMBERS:06} is your number."}


def continued(messages: Messages, answer: str) -> Messages:
    """The conversation with its answer and another question."""
    return [*messages, {"role": "assistant", "content": answer}, {"role": "user", "content": "Tell me more."}]
