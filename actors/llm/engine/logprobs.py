"""The account of a choice that clients may ask for: how likely the token was, and what else might have come."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...completion import Alternative, Chosen
from ..text.tokenizer import Tokenizer
from .sampler import logprobs


def describe_choice(tokenizer: Tokenizer, logits: NDArray[np.float32], token: int, count: int) -> Chosen:
    """Natural logarithms of probabilities, from the raw logits: of the token, and of the `count` likeliest."""
    logprob, top = logprobs(logits, token, count)
    return {
        **_alternative(tokenizer, token, logprob),
        "top": [_alternative(tokenizer, other, likely) for other, likely in top],
    }


def _alternative(tokenizer: Tokenizer, token: int, logprob: float) -> Alternative:
    text = tokenizer.token_bytes(token)
    return {"token": text.decode(errors="replace"), "bytes": list(text), "logprob": logprob}
