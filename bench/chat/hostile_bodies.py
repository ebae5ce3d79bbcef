"""Requests that cost as much as a client can make them cost: what `bench stalls` sends beside somebody's stream."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .chat_graph import MODEL

# A little less than the largest body that an ingress takes, unless its author says otherwise.
NBYTES = (4 << 20) - 400
_EMPTY = '{"role":"user","content":""}'


@dataclass(frozen=True)
class HostileBody:
    """`make(number)` gives the body; no two numbers give one of which a cache knows more than a few tokens."""

    name: str
    make: Callable[[int], bytes]


def _request(messages: list[dict[str, Any]] | None = None, **fields: Any) -> Callable[[int], bytes]:
    def make(number: int) -> bytes:
        said = [{"role": "system", "content": f"{number:06}"}, *(messages or [{"role": "user", "content": "Hi"}])]
        whole = {"model": MODEL, "messages": said, "max_tokens": 1, "temperature": 1, **fields}
        return json.dumps(whole, ensure_ascii=False).encode()

    return make


def _with(field: str, unit: str, nbytes: int = NBYTES) -> Callable[[int], bytes]:
    """A request with an array of as many of these as there is room for."""
    inner = ",".join([unit] * (nbytes // (len(unit) + 1)))
    return lambda _: f'{{"model":"{MODEL}","max_tokens":1,"messages":[{_EMPTY}],"{field}":[{inner}]}}'.encode()


def _said(text: str) -> Callable[[int], bytes]:
    return _request([{"role": "user", "content": text}])


def _messages(count: int) -> Callable[[int], bytes]:
    return _request([{"role": "user", "content": ""}] * count)


def _text(unit: str, nbytes: int = NBYTES) -> str:
    return unit * (nbytes // len(unit.encode()))


def plain(tokens: int) -> HostileBody:
    """A prompt of about so many tokens that anybody might send."""
    return HostileBody(f"plain, {tokens} tokens", _said(" hello" * (tokens - 20)))


REFUSED = (
    HostileBody("an unknown field of 4 MB", _request(None, **{_text("a"): 1})),
    HostileBody("4 MB of [] as messages", _with("messages", "[]")),
    HostileBody("4 MB of [] as logit_bias", _with("logit_bias", "[]")),
    HostileBody("4 MB of {} as tools", _with("tools", "{}")),
    HostileBody("4 MB of numbers as metadata", _with("metadata", "1")),
    HostileBody("4 MB of long numbers", _with("user", "9" * 4000)),
    HostileBody("4 MB of short texts", _with("stop", '""')),
    HostileBody("2000 messages of nothing", _messages(2000)),
    HostileBody("17000 messages of nothing", _with("messages", _EMPTY, 17_000 * len(_EMPTY))),
    HostileBody("4 MB of parts of nothing", _with("messages", '{"role":"user","content":[{"type":"text","text":""}]}')),
    HostileBody("a text of 4 MB", _said(_text("a"))),
    HostileBody("a text of 4 MB in Chinese", _said(_text("你"))),
    HostileBody("a text of 32 kB of digits", _said(_text("7", 32_000))),
    HostileBody("a text of 32 kB, one word", _said(_text("abcdefgh", 32_000))),
    HostileBody("eight choices of 250 kB", _request([{"role": "user", "content": _text("a ", 250_000)}], n=8)),
    HostileBody("eight choices of 4 MB", _request([{"role": "user", "content": _text("a")}], n=8)),
    HostileBody("a role of 4 MB", _request([{"role": _text("a"), "content": ""}])),
    HostileBody("a stop string of 4 MB", _request(stop=_text("a"))),
    HostileBody("4 MB of [ and no end", lambda _: b"[" * NBYTES),
    HostileBody("4 MB that end too soon", lambda number: _request(user=_text("a"))(number)[:-1]),
)
ACCEPTED = (
    HostileBody("4 MB behind the request", lambda number: _said("Hi")(number) + b" " * (NBYTES - 200)),
    HostileBody("a user's name of 4 MB", _request(user=_text("é"))),
    HostileBody("370 messages of nothing", _messages(370)),
    HostileBody("32 kB of dashes", _said(_text("-", 32_000))),
    HostileBody("a text of 400 digits", _said(_text("7", 400))),
    HostileBody("stop strings that nearly match", _request(stop=["a" * 999 + "b", "ab" * 500, "a" * 1000, "ba" * 500])),
)
BODIES = {each.name: each for each in REFUSED + ACCEPTED}
