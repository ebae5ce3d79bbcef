"""The actor that answers from memory, and hands everything else on to its model."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Any

from ...runtime.actor.actor import Actor
from ...runtime.actor.delegation import Report
from ...runtime.actor.reply_stream import ReplyStream
from ...runtime.errors import SlabwireError, UnknownPort
from ..completion import Item
from .responses import Responses, canonical, is_deterministic, is_short

# The numbers of a prefix cache that is being started again, or is stuck, are not worth waiting for.
PREFIXES_WITHIN_S = 0.5

Answer = list[dict[str, Any]]


class ResponseCache(Actor):
    """Whole answers, kept before a language model: `graph.add(ResponseCache, name="cache", model="llm")`.

    `model`: the name of the actor whose `chat` it answers for. What it does not know it hands on: the model's words go
    to the caller without it, and at the end it is told the answer. It keeps those of deterministic requests, at most
    `responses` of them and `response_bytes` bytes for `ttl_s` seconds each. All is forgotten when its worker restarts.
    `prefixes` names the PrefixCache whose numbers `describe` is to show beside its own.

    A known answer of more than 64 items takes one of its places (`concurrency`) until its reader has nearly all of it.
    """

    def __init__(
        self,
        model: str,
        response_bytes: int = 16 << 20,
        responses: int = 1024,
        ttl_s: float = 300.0,
        prefixes: str | None = None,
    ) -> None:
        self._model = model
        self._responses = Responses(response_bytes, responses, ttl_s)
        self._prefixes = prefixes
        self._giving: set[asyncio.Task[None]] = set()

    async def on_start(self) -> None:
        self._loop = asyncio.get_running_loop()

    def chat(
        self,
        messages: list[dict[str, Any]],
        max_tokens: int | None = None,
        temperature: float = 1.0,
        top_p: float = 1.0,
        seed: int | None = None,
        stop: list[str] | None = None,
        logprobs: int | None = None,
    ) -> ReplyStream[dict[str, Any]]:
        """Answers a conversation, by the items of the model's own `chat`.

        A request with temperature 0 or a seed has one answer. If it is known its items come again just as they were
        made, but that `cached_tokens` is all of the prompt. An answer is kept when it is whole, never one that failed
        or was left. Two of the same request that run at one time both run; the later one is kept.
        Raises what the model raises.
        """
        fields: dict[str, Any] = {
            "messages": messages,
            "max_tokens": max_tokens,
            "temperature": temperature,
            "top_p": top_p,
            "seed": seed,
            "stop": stop,
            "logprobs": logprobs,
        }
        key = canonical(**fields) if is_deterministic(temperature, seed) and is_short([messages, stop]) else None
        kept = self._responses.find(key, time.monotonic()) if key is not None else None
        if kept is not None:
            return self._known([_as_cached(item) for item in kept])
        handed_on: ReplyStream[dict[str, Any]] = self.delegate(
            f"{self._model}.chat",
            **fields,
            report=None if key is None else "answered",
            about=key,
            report_nbytes=self._responses.capacity_bytes,
        )
        return handed_on

    def answered(self, about: bytes, report: Report) -> None:
        """The model has answered the request of that name. What failed, or was left, has no items here."""
        if report.items is not None:
            self._responses.keep(about, report.items, time.monotonic())

    def _known(self, items: Answer) -> ReplyStream[dict[str, Any]]:
        """Gives a known answer: at once where its reader has room for all of it, as nearly every reader has."""
        stream: ReplyStream[dict[str, Any]] = self.reply_stream()
        if len(items) <= stream.room:
            self.publish([(stream, item) for item in items], ended=[stream])
        else:
            task = self._loop.create_task(self._give(stream, items))
            self._giving.add(task)
            task.add_done_callback(self._giving.discard)
        return stream

    async def _give(self, stream: ReplyStream[dict[str, Any]], items: Answer) -> None:
        """As many items at a time as the reader has room for, until all have left or it has."""
        given = 0
        while given < len(items) and stream.is_open:
            await stream.wait_for_room()
            piece = items[given : given + stream.room]
            given += len(piece)
            self.publish([(stream, item) for item in piece], ended=[stream] if given == len(items) else [])

    async def describe(self) -> dict[str, Any]:
        """What the model says of itself, and under "cache" the numbers of the caches: {name: number}."""
        about: dict[str, Any] = await self.call(f"{self._model}.describe", timeout_s=self._within(math.inf))
        numbers = {f"responses_{name}": number for name, number in self._responses.stats().items()}
        return {**about, "cache": {**numbers, **await self._prefix_numbers()}}

    async def _prefix_numbers(self) -> dict[str, int]:
        """None where the prefix cache does not answer: this says nothing of how the model fares."""
        if self._prefixes is None:
            return {}
        try:
            stats = await self.call(f"{self._prefixes}.describe", timeout_s=self._within(PREFIXES_WITHIN_S))
        except UnknownPort:
            raise
        except SlabwireError:
            return {}
        return {f"prefixes_{name}": number for name, number in stats.items()}

    def _within(self, most_s: float) -> float:
        """How long to wait for another actor: less than whoever asks does, so that the error names that actor."""
        left_s = self.context.time_left_s()
        return most_s if left_s is None else min(most_s, 0.8 * left_s)


def _as_cached(item: Item) -> dict[str, Any]:
    """An item of a kept answer. The last one says that no token of the prompt was computed."""
    cached = {"cached_tokens": item["prompt_tokens"]} if "finish_reason" in item else {}
    return {**item, **cached}
