"""The objects that an answer is made of, as OpenAI's interface has them: chunks of a stream, or one completion."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Mapping
from functools import cache
from json.encoder import encode_basestring
from typing import Any

from ...completion import Alternative, Chosen, Finished, Item

# "Very unlikely" in OpenAI's interface; JSON has no infinity.
_LEAST_LOGPROB = -9999.0
DONE = b"data: [DONE]\n\n"
_TAIL, _TAIL_WITH_USAGE = "]}\n\n", '],"usage":null}\n\n'
_AFTER_TEXT = {tail: f'}},"logprobs":null,"finish_reason":null}}{tail}' for tail in (_TAIL, _TAIL_WITH_USAGE)}

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
# Not the ends of lines to a reader of event streams, but many a client cuts them there.
OTHER_LINE_ENDS = {0x85: "\\u0085", 0x2028: "\\u2028", 0x2029: "\\u2029"}


def _json(value: Any) -> str:
    text = _encode(value)
    return text if text.isascii() else text.translate(OTHER_LINE_ENDS)


def _bytes(text: str) -> bytes:
    # JSON's escape of half a surrogate pair happens to be Python's.
    return text.encode("utf-8", "backslashreplace")


def event(body: bytes) -> bytes:
    """A server-sent event of one line."""
    return b"data: " + body + b"\n\n"


@cache
def _before_text(choice: int) -> str:
    return f'{{"index":{choice},"delta":{{"content":'


class Chunks:
    """Makes the events of one streamed answer; all but what changes is encoded once.

    `created`: seconds since 1970. With `usage` every chunk carries that field, null until the last.
    """

    __slots__ = ("_head", "_tail")

    def __init__(self, model: str, created: int, *, usage: bool) -> None:
        head = _json({"id": new_id(), "object": "chat.completion.chunk", "created": created, "model": model})
        self._head = f'data: {head[:-1]},"choices":['
        self._tail = _TAIL_WITH_USAGE if usage else _TAIL

    def role(self, choice: int) -> bytes:
        """The first chunk of a choice."""
        return self._chunk(choice, '{"role":"assistant","content":"","refusal":null}', "null", "null")

    def item(self, choice: int, item: Item) -> bytes:
        """A piece of a choice's text, or its end; b"" for a piece that says nothing."""
        if "finish_reason" in item:
            return self._chunk(choice, "{}", "null", _json(item["finish_reason"]))
        logprobs, text = item.get("logprobs"), encode_basestring(item["text"])
        if not (logprobs or item["text"]):
            return b""
        if not text.isascii():
            text = text.translate(OTHER_LINE_ENDS)
        told = _json(logprobs_of(logprobs)) if logprobs else "null"
        return self._chunk(choice, f'{{"content":{text}}}', told, "null")

    def around(self, choice: int) -> tuple[str, str, str]:
        """What `item` has before the text of a piece without logprobs, in two parts, and what behind it. But for the
        first part all answers share them.
        """
        return self._head, _before_text(choice), _AFTER_TEXT[self._tail]

    def usage(self, usage: Mapping[str, Any]) -> bytes:
        """The chunk after all choices."""
        return _bytes(f'{self._head}],"usage":{_json(usage)}}}\n\n')

    def _chunk(self, choice: int, delta: str, logprobs: str, reason: str) -> bytes:
        inner = f'{{"index":{choice},"delta":{delta},"logprobs":{logprobs},"finish_reason":{reason}}}'
        return _bytes(self._head + inner + self._tail)


class Whole:
    """Gathers the answer of a request that is not streamed."""

    def __init__(self, model: str, created: int, choices: int) -> None:
        self._model = model
        self._created = created
        self._texts: list[list[str]] = [[] for _ in range(choices)]
        self._logprobs: list[list[Chosen]] = [[] for _ in range(choices)]

    def add(self, choice: int, item: Item) -> None:
        """Takes in a piece of a choice; its end adds nothing."""
        self._texts[choice].append(item.get("text", ""))
        self._logprobs[choice].extend(item.get("logprobs", ()))

    def body(self, endings: list[Finished], *, logprobs: bool) -> bytes:
        """The `chat.completion` object, as JSON; `endings` by choice."""
        choices = [self._choice(index, ending, logprobs) for index, ending in enumerate(endings)]
        completion = {
            "id": new_id(),
            "object": "chat.completion",
            "created": self._created,
            "model": self._model,
            "choices": choices,
            "usage": usage_of(endings),
        }
        return _bytes(_json(completion))

    def _choice(self, index: int, ending: Finished, logprobs: bool) -> dict[str, Any]:
        message = {"role": "assistant", "content": "".join(self._texts[index]), "refusal": None}
        return {
            "index": index,
            "message": message,
            "logprobs": logprobs_of(self._logprobs[index]) if logprobs else None,
            "finish_reason": ending["finish_reason"],
        }


def new_id() -> str:
    """The name of one completion: the same in all of its chunks."""
    return f"chatcmpl-{secrets.token_hex(12)}"


def usage_of(endings: Iterable[Finished]) -> dict[str, Any]:
    """Tokens of a whole request. Its choices share one prompt: it counts once, and as cached where it was for all."""
    each = list(endings)
    prompt = each[0]["prompt_tokens"]
    completion = sum(ending["completion_tokens"] for ending in each)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": min(ending["cached_tokens"] for ending in each)},
    }


def logprobs_of(chosen: Iterable[Chosen]) -> dict[str, Any]:
    """OpenAI's `logprobs` of a choice."""
    content = [{**_token(each), "top_logprobs": [_token(other) for other in each["top"]]} for each in chosen]
    return {"content": content, "refusal": None}


def _token(token: Alternative) -> dict[str, Any]:
    # In this order of arguments a value that is no number gives the least one, too.
    logprob = max(_LEAST_LOGPROB, token["logprob"])
    return {"token": token["token"], "logprob": logprob, "bytes": list(token["bytes"])}
