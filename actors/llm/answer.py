"""One answer of a language model, on its way from the engine to its reader."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...runtime.actor.reply_stream import ReplyStream
from ..completion import Chosen

if TYPE_CHECKING:
    from .engine.sequence import Output, Sequence


class Answer:
    """`stream` is its reader's. What that has no room for waits here, and becomes one piece: to pause the sequence
    would keep its slot from others. So a reader that is slow holds up nobody, loses nothing, and catches up by one
    item. The sequence is as long as its slot at most, and so is what waits.
    """

    def __init__(self, stream: ReplyStream[dict[str, Any]], sequence: Sequence) -> None:
        self.stream = stream
        self._sequence = sequence
        self._text = ""
        self._tokens = 0
        self._logprobs: list[Chosen] = []

    @property
    def counts(self) -> dict[str, int]:
        """What it took, in tokens."""
        sequence = self._sequence
        return {
            "prompt_tokens": len(sequence.prompt),
            "completion_tokens": len(sequence.chosen),
            "cached_tokens": sequence.cached,
        }

    def items(self, output: Output) -> list[dict[str, Any]]:
        """What is to be sent now that the engine has made this. With the last output that is all there is, room or not:
        two items at most, which may wait at the actor.
        """
        self._text += output.text
        self._tokens += output.tokens
        self._logprobs += output.logprobs
        items: list[dict[str, Any]] = []
        if (self._text or self._logprobs) and (output.is_last or self.stream.room):
            items.append(self._take())
        if output.finish_reason is not None:
            items.append({"finish_reason": output.finish_reason, **self.counts})
        return items

    def _take(self) -> dict[str, Any]:
        delta: dict[str, Any] = {"text": self._text, "tokens": self._tokens}
        if self._logprobs:
            delta["logprobs"] = self._logprobs
        self._text, self._tokens, self._logprobs = "", 0, []
        return delta
