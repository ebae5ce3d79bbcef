"""One answer in the making: its prompt, what was chosen so far, and the text that may be shown of it."""

from __future__ import annotations

from collections.abc import Sequence as Listed
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ...completion import Alternative, Chosen
from ..text.stop_strings import StopStrings, text_decoder
from ..text.tokenizer import Tokenizer
from .sampler import Sampler, logprobs


@dataclass(frozen=True)
class Output:
    """What one step gave to one sequence. `finish_reason` is "stop" or "length" in its last, unless `error` ends it."""

    sequence: Sequence
    text: str
    tokens: int
    logprobs: list[Chosen] = field(default_factory=list)
    finish_reason: str | None = None
    error: Exception | None = None

    @property
    def is_last(self) -> bool:
        return self.finish_reason is not None or self.error is not None


class Sequence:
    """`prompt` is at least two tokens; at most `limit` are chosen.

    While it is `held` it waits for its slot, or has it, and nothing is computed: keys and values may be loaded.
    `logprobs`: how many alternatives to each token are wanted, None for no account of probabilities at all.
    """

    def __init__(
        self,
        prompt: list[int],
        *,
        limit: int,
        sampler: Sampler,
        stops: Listed[str] = (),
        logprobs: int | None = None,
    ) -> None:
        self.prompt = prompt
        self.chosen: list[int] = []
        self.held = False
        self.slot = -1
        self.done = 0  # tokens whose keys and values lie in the slot
        self.cached = 0  # of these, tokens whose keys and values were loaded
        self._limit = limit
        self._sampler = sampler
        self._text = text_decoder()
        self._stops = StopStrings(stops)
        self._logprobs = logprobs

    @property
    def tokens_left(self) -> int:
        """Of the prompt, not yet taken in."""
        return len(self.prompt) - self.done

    @property
    def is_decoding(self) -> bool:
        return bool(self.chosen)

    @property
    def tokens(self) -> list[int]:
        """Everything so far, prompt and answer; the keys and values of the first `done` are known."""
        return self.prompt + self.chosen

    def choose(self, logits: NDArray[np.float32], tokenizer: Tokenizer) -> Output:
        """Picks the next token by its logits, float32 [vocabulary]."""
        token = self._sampler.choose(logits)
        self.chosen.append(token)
        if tokenizer.is_control(token):
            return self._end("", "stop", [])
        account = [] if self._logprobs is None else [_account(tokenizer, logits, token, self._logprobs)]
        shown, stopped = self._stops.push(self._text.decode(tokenizer.token_bytes(token)))
        if stopped:
            return Output(self, shown, 1, account, "stop")
        if len(self.chosen) >= self._limit:
            return self._end(shown, "length", account)
        return Output(self, shown, 1, account)

    def _end(self, shown: str, reason: str, account: list[Chosen]) -> Output:
        """The last output, with what was held back."""
        rest, stopped = self._stops.push(self._text.decode(b"", final=True))
        tail = "" if stopped else self._stops.finish()
        return Output(self, shown + rest + tail, 1, account, "stop" if stopped else reason)


def _account(tokenizer: Tokenizer, logits: NDArray[np.float32], token: int, count: int) -> Chosen:
    """How likely a token was, and what else might have come: natural logarithms of probabilities, of the raw logits."""
    logprob, top = logprobs(logits, token, count)
    return {
        **_alternative(tokenizer, token, logprob),
        "top": [_alternative(tokenizer, other, likely) for other, likely in top],
    }


def _alternative(tokenizer: Tokenizer, token: int, logprob: float) -> Alternative:
    text = tokenizer.token_bytes(token)
    return {"token": text.decode(errors="replace"), "bytes": list(text), "logprob": logprob}
