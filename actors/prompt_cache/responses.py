"""Whole answers, kept as they were made: what the same deterministic request is answered with again. No I/O."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgpack

from ..completion import MOST_CONTENT_NBYTES, BadMessages, Item

KEY_NBYTES = 32
# To name a value takes about as long as a text of so many characters, beside its own.
_VALUE_NBYTES = 32


def is_deterministic(temperature: float, seed: int | None) -> bool:
    """Whether a request asks for the one answer that it always has: the likeliest tokens, or a seed of its own.

    Any other asks for one of many answers. To give it the same one again would change what it means.
    """
    return temperature == 0 or seed is not None


def is_short(request: Any, most: int = MOST_CONTENT_NBYTES) -> bool:
    """Whether a request is short enough to be named. To name a long one holds up everybody, and no model takes it."""
    left, waiting = most, [request]
    while waiting and left >= 0:
        each = waiting.pop()
        inner = [*each.keys(), *each.values()] if isinstance(each, dict) else each
        if isinstance(inner, list):
            left -= _VALUE_NBYTES * len(inner)
            waiting += inner if left >= 0 else ()
        elif isinstance(each, str):
            left -= len(each)
    return left >= 0


def canonical(
    messages: list[dict[str, Any]],
    max_tokens: int | None = None,
    temperature: float = 1.0,
    top_p: float = 1.0,
    seed: int | None = None,
    stop: list[str] | None = None,
    logprobs: int | None = None,
) -> bytes:
    """The name of a request: the BLAKE2b hash, 32 bytes, of all that the answer depends on.

    What is left out counts as its default, an int as the equal float where a float belongs; the order of a dict's keys
    does not matter. Raises BadMessages for a conversation that is not made of JSON's types.
    """
    fields = [messages, max_tokens, _plain(temperature), _plain(top_p), seed, stop or [], logprobs]
    try:
        text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise BadMessages(
            f"messages cannot be compared with earlier ones: {error}; send texts and JSON's types"
        ) from None
    return hashlib.blake2b(text.encode("ascii"), digest_size=KEY_NBYTES).digest()


def _plain(number: float) -> float:
    return float(number) + 0.0  # makes a negative zero positive


@dataclass(frozen=True, slots=True)
class _Answer:
    """Its items, packed: so they take a tenth of the memory that they take as objects, and their size is known."""

    packed: bytes
    kept_at_s: float


class Responses:
    """Answers by the names of their requests, for one model. What was used longest ago makes room.

    At most `most` answers and `capacity_bytes` bytes of their items are kept, each for `ttl_s` seconds from when it was
    made; 0 of any of them keeps nothing. Times are seconds on any one clock. One thread.
    """

    def __init__(self, capacity_bytes: int, most: int, ttl_s: float) -> None:
        self.capacity_bytes = capacity_bytes
        self.most = most
        self.ttl_s = ttl_s
        self.nbytes = 0
        self._answers: OrderedDict[bytes, _Answer] = OrderedDict()  # what was used last stands last
        self._counts = dict.fromkeys(("hits", "misses", "stored", "evictions", "expired"), 0)

    def find(self, key: bytes, now_s: float) -> Iterator[dict[str, Any]] | None:
        """The items of an answer, the same as were kept; None if none is known that is still fresh."""
        answer = self._answers.get(key)
        if answer is not None and now_s - answer.kept_at_s >= self.ttl_s:
            self._remove(key)
            self._counts["expired"] += 1
            answer = None
        self._counts["misses" if answer is None else "hits"] += 1
        if answer is None:
            return None
        self._answers.move_to_end(key)
        unpacker = msgpack.Unpacker(max_buffer_size=len(answer.packed))
        unpacker.feed(answer.packed)
        items: Iterator[dict[str, Any]] = iter(unpacker)
        return items

    def keep(self, key: bytes, items: Sequence[Item], now_s: float) -> None:
        """Keeps a whole answer, in place of an older one to the same request.

        One whose last item does not say why it ended is not kept: another caller would get half of it. Nor is one that
        is larger than all that may be kept.
        """
        if not items or items[-1].get("finish_reason") is None:
            return
        packed = b"".join(map(msgpack.packb, items))
        if len(packed) > self.capacity_bytes:
            return
        self._remove(key)
        self._answers[key] = _Answer(packed, now_s)
        self.nbytes += len(packed)
        self._counts["stored"] += 1
        while len(self._answers) > self.most or self.nbytes > self.capacity_bytes:
            self._remove(next(iter(self._answers)))
            self._counts["evictions"] += 1

    def _remove(self, key: bytes) -> None:
        answer = self._answers.pop(key, None)
        if answer is not None:
            self.nbytes -= len(answer.packed)

    def stats(self) -> dict[str, int]:
        return {"answers": len(self._answers), "bytes": self.nbytes, **self._counts}
