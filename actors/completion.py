"""What is asked of a chat model, and what it answers: the words that language model, cache and ingress share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from ..runtime.errors import MessageError, SlabwireError

# Tokens whose keys and values one page holds, on the way between a language model and a cache of prefixes.
PAGE_TOKENS = 32
# As many alternatives to a token as OpenAI's interface allows to ask for.
MOST_LOGPROBS = 20
MOST_STOPS = 4
# Roles that are taken, and how models know them: "developer" is the newer name of "system".
ROLES: Mapping[str, str] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
# The text held back while it may become a stop string is never longer than this.
MOST_STOP_CHARACTERS = 1000
# As many as OpenAI's interface takes. Each costs time, however little it says.
MOST_MESSAGES = 2048
# 8,192 tokens of English are about 35 kB. A text many times as long would keep a process busy with making tokens of
# it, only to be turned away.
MOST_CONTENT_NBYTES = 1 << 18


class PromptTooLong(SlabwireError):
    """A prompt that leaves no room for an answer in the model's context."""

    code = "context_length_exceeded"
    http_status = 400


# LiteLLM, CrewAI and others know this error by these words of OpenAI's, and go on with fewer messages or another model.
KNOWN_WORDS = "This model's maximum context length is"


def prompt_too_long(what: str, context: int | None = None) -> PromptTooLong:
    """The error for a prompt, in words that clients know. `what` is wrong; `context` in tokens, where it is known."""
    if context is None:
        return PromptTooLong(f"{KNOWN_WORDS} exceeded: {what}")
    return PromptTooLong(f"{KNOWN_WORDS} {context} tokens. However, {what}")


class BadMessages(MessageError):
    """A conversation, or a setting of it, that the model cannot take."""

    code = "bad_messages"
    http_status = 400


class Alternative(TypedDict):
    """A token that might have come in this place. `bytes` is its text in UTF-8, perhaps a part of a character."""

    token: str
    bytes: list[int]
    logprob: float


class Chosen(Alternative):
    """A token of the answer; `top` holds the likeliest in its place, the likeliest first."""

    top: list[Alternative]


class Accepted(TypedDict):
    """The first item of an answer: the request is queued, or runs."""

    prompt_tokens: int


class _Text(TypedDict):
    text: str
    tokens: int


class Delta(_Text, total=False):
    """A piece of the answer, which `tokens` tokens made. `logprobs`, of each of them, only where it was asked for."""

    logprobs: list[Chosen]


class Finished(TypedDict):
    """The last item: why the answer ended ("stop" or "length"), and what it took."""

    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int


Item = Mapping[str, Any]
