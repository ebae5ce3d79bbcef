"""What `POST /v1/chat/completions` asks for, in OpenAI's words, and in those of a chat port."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ....runtime.spelling import did_you_mean
from ...completion import MOST_LOGPROBS, MOST_STOP_CHARACTERS, MOST_STOPS
from ..requests.parameters import Parameters, named, shown, wrong_type, wrong_value
from ..requests.refusals import Refusal
from .conversation import conversation

MOST_CHOICES = 8
_MOST_TOKENS = (1 << 31) - 1
_SEEDS = 1 << 63

_READ = {
    *("messages", "model", "max_tokens", "max_completion_tokens", "temperature", "top_p", "n", "seed", "stop"),
    *("stream", "stream_options", "logprobs", "top_logprobs"),
}
# They say who asks, how to account for it, or hint at how to compute; the answer is right without them.
_IGNORED = {
    *("user", "metadata", "store", "service_tier", "parallel_tool_calls", "safety_identifier", "prediction"),
    *("prompt_cache_key", "prompt_cache_retention", "prompt_cache_options", "reasoning_effort", "verbosity"),
    *("cache_prompt", "keep_alive", "priority"),
}
# They would change the answer and nothing here can do that: taken only with a value that asks for nothing.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "audio": (),
    "moderation": (),
    "web_search_options": (),
}
# Where the first has this value the second is never used, and may say what it likes.
_UNUSED = {"tool_choice": "tools", "function_call": "functions"}
_KNOWN = {*_READ, *_IGNORED, *_NEUTRAL}
# What other servers of this interface take besides, each with the values that ask for nothing: clients send these
# unasked. None is a misspelling of what is taken here.
_ELSEWHERE: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("repetition_penalty", "repeat_penalty", "length_penalty", "typical_p", "tfs", "tfs_z"), (1,)),
    **dict.fromkeys(("min_p", "top_a", "mirostat", "dry_multiplier", "xtc_probability", "min_tokens"), (0,)),
    **dict.fromkeys(("mirostat_tau", "mirostat_eta", "repeat_last_n", "samplers"), ()),
    **dict.fromkeys(("n_predict", "num_predict"), (-1,)),
    **dict.fromkeys(("stop_token_ids", "bad_words", "allowed_token_ids", "documents"), ([],)),
    **dict.fromkeys(("ignore_eos", "use_beam_search", "early_stopping", "echo", "continue_final_message"), (False,)),
    **dict.fromkeys(("include_stop_str_in_output", "return_token_ids", "return_tokens_as_token_ids"), (False,)),
    **dict.fromkeys(("skip_special_tokens", "spaces_between_special_tokens", "add_generation_prompt"), (True,)),
    **dict.fromkeys(("guided_json", "guided_regex", "guided_choice", "guided_grammar", "json_schema"), ()),
    **dict.fromkeys(("num_ctx", "prompt", "prompt_logprobs", "chat_template"), ()),
    **dict.fromkeys(("grammar", "format", "suffix"), ("",)),
    **dict.fromkeys(("enable_thinking", "think"), (False,)),
    "top_k": (-1, 0),
    "best_of": (1,),
    "options": ({},),
    "chat_template_kwargs": ({}, {"enable_thinking": False}),
    "include_reasoning": (False, True),
    "reasoning": ({}, {"effort": "none"}, {"enabled": False}),
    "thinking": ({"type": "disabled"},),
}


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A checked request. `logprobs`: None for none, else how many alternatives to each token."""

    model: str
    messages: list[dict[str, Any]]
    max_tokens: int | None
    temperature: float
    top_p: float
    seed: int | None
    stop: list[str] | None
    logprobs: int | None
    n: int
    stream: bool
    include_usage: bool

    def fields(self, choice: int) -> dict[str, Any]:
        """The fields of a chat port's message for one of the `n` choices; a seed counts up from choice to choice."""
        return {
            "messages": self.messages,
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "seed": None if self.seed is None else (self.seed + choice) % _SEEDS,
            "stop": self.stop,
            "logprobs": self.logprobs,
        }


def chat_request(body: Mapping[str, Any]) -> ChatRequest:
    """The request that a JSON body makes. Raises Refusal, which names the field at fault, and PromptTooLong.

    A `top_p` of 0 leaves the likeliest token alone, as a temperature of 0 does: chat ports know it as the latter.
    """
    given = Parameters(body)
    _check_names(given)
    stream = given.flag("stream") or False
    temperature, top_p = _or(given.number("temperature", 0, 2), 1.0), _or(given.number("top_p", 0, 1), 1.0)
    return ChatRequest(
        model=_model(given),
        messages=conversation(given.any("messages")),
        max_tokens=_max_tokens(given),
        temperature=temperature if top_p else 0.0,
        top_p=top_p or 1.0,
        seed=given.integer("seed", -_SEEDS, _SEEDS - 1),
        stop=_stop(given.any("stop")),
        logprobs=_logprobs(given),
        n=_or(given.integer("n", 1, MOST_CHOICES), 1),
        stream=stream,
        include_usage=_include_usage(given, stream),
    )


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


def _check_names(given: Parameters) -> None:
    for name in given.names:
        if name in _ELSEWHERE:
            if given.any(name) not in _ELSEWHERE[name]:
                raise Refusal(f"'{name}' is not supported by this server; leave it out.", name, "unsupported_parameter")
        elif name not in _KNOWN:
            hint = did_you_mean(name, _KNOWN) or "; leave it out"
            raise Refusal(
                f"Unrecognized request argument supplied: {named(name)[1:-1]}{hint}", name[:100], "unknown_parameter"
            )
    unused = [name for choice, name in _UNUSED.items() if given.any(choice) == "none"]
    for name, neutral in _NEUTRAL.items():
        value = given.any(name)
        if value is not None and value not in neutral and name not in unused:
            raise _unsupported(name, value, neutral)


def _unsupported(name: str, value: Any, neutral: tuple[Any, ...]) -> Refusal:
    remedy = f"leave it out, or set it to {shown(neutral[0])}" if neutral else "leave it out"
    return Refusal(f"'{name}' is not supported here (got {shown(value)}); {remedy}.", name, "unsupported_value")


def _model(given: Parameters) -> str:
    model = given.text("model")
    if not model:
        raise Refusal(
            "Missing required parameter: 'model'; GET /v1/models lists those that this server has.",
            "model",
            "missing_required_parameter",
        )
    return model


def _max_tokens(given: Parameters) -> int | None:
    """Of the two names that OpenAI's interface has for it."""
    older = given.integer("max_tokens", 1, _MOST_TOKENS)
    newer = given.integer("max_completion_tokens", 1, _MOST_TOKENS)
    if older is not None and newer is not None and older != newer:
        raise Refusal(
            f"'max_tokens' is {older} and 'max_completion_tokens' is {newer}; they mean the same: set one of them.",
            "max_tokens",
            "invalid_value",
        )
    return older if newer is None else newer


def _stop(value: Any) -> list[str] | None:
    if value is None:
        return None
    stops = [value] if type(value) is str else value
    if type(stops) is not list:
        raise wrong_type("stop", value, "a string or an array of strings")
    if len(stops) > MOST_STOPS:
        raise Refusal(f"'stop' has {len(stops)} strings; it takes {MOST_STOPS}.", "stop", "array_above_max_length")
    for index, each in enumerate(stops):
        _check_stop("stop" if type(value) is str else f"stop[{index}]", each)
    return stops or None


def _check_stop(param: str, value: Any) -> None:
    if type(value) is not str:
        raise wrong_type(param, value, "a string")
    if not 0 < len(value) <= MOST_STOP_CHARACTERS:
        raise wrong_value(param, value, f"a string of 1 to {MOST_STOP_CHARACTERS} characters")


def _logprobs(given: Parameters) -> int | None:
    wanted = given.flag("logprobs")
    top = given.integer("top_logprobs", 0, MOST_LOGPROBS)
    if top and not wanted:
        raise Refusal("'top_logprobs' needs 'logprobs' to be true.", "top_logprobs", "invalid_value")
    return (top or 0) if wanted else None


def _include_usage(given: Parameters, stream: bool) -> bool:
    options = given.object("stream_options")
    if options is None:
        return False
    if not stream and any(options.values()):
        raise Refusal("'stream_options' is only allowed where 'stream' is true.", "stream_options", "invalid_value")
    known = ("include_usage", "include_obfuscation")
    for name in options:
        if name not in known:
            hint = did_you_mean(name, known) or f"; it takes {', '.join(known)}"
            param = f"stream_options.{name[:100]}"
            raise Refusal(f"Unrecognized request argument supplied: {param}{hint}", param, "unknown_parameter")
    return Parameters(options, "stream_options").flag("include_usage") or False
