"""The actor that answers from memory, and hands everything else on to its model."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.actor.actor import Actor
from ...runtime.errors import MessageError, Overloaded
from ..completion import Item
from .prefixes import ROOT_KEY, Prefixes
from .responses import Recording, Responses, canonical, is_deterministic, is_short

# An actor has 64 inputs in flight. The rest is left to the model's own questions: if answers took all places, waiting
# for the model or for slow readers, and the model waited for pages, neither would ever go on.
MOST_ASKED = 48

Answer = AsyncGenerator[dict[str, Any], None]


class PromptCache(Actor):
    """Memory in front of a language model: `graph.add(PromptCache, name="cache", model="llm")`.

    `model`: the name of the actor whose `chat` it answers for. It keeps whole answers of deterministic requests, at
    most `responses` of them and `response_bytes` bytes for `ttl_s` seconds each, and pages of keys and values, at most
    `prefix_bytes` bytes. The pages are the model's own memory, held by leases: they count against the model's
    `memory_bytes`, and nothing of them is copied here. All is forgotten when its worker restarts. Its `concurrency`
    must stay above 48, so many requests may wait for the model.
    """

    def __init__(
        self,
        model: str,
        response_bytes: int = 16 << 20,
        responses: int = 1024,
        ttl_s: float = 300.0,
        prefix_bytes: int = 256 << 20,
    ) -> None:
        self._model = model
        self._responses = Responses(response_bytes, responses, ttl_s)
        self._prefixes: Prefixes[NDArray[Any]] = Prefixes(prefix_bytes)
        self._asked = 0

    async def chat(
        self,
        messages: list[dict[str, Any]],
        max_tokens: int | None = None,
        temperature: float = 1.0,
        top_p: float = 1.0,
        seed: int | None = None,
        stop: list[str] | None = None,
        logprobs: int | None = None,
    ) -> AsyncIterator[dict[str, Any]]:
        """Answers a conversation, by the items of the model's own `chat`.

        A request with temperature 0 or a seed has one answer. If it is known its items come again just as they were
        made, but that `cached_tokens` is all of the prompt. An answer is kept when it is whole, never one that failed
        or was left. Two of the same request that run at one time both run; the later one is kept.
        Raises what the model raises, and Overloaded when 48 answers are under way.
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
        with self._place():
            if kept is not None:
                for item in kept:
                    yield _as_cached(item)
                return
            async with aclosing(self._ask(fields, self._responses.record(key) if key is not None else None)) as items:
                async for item in items:
                    yield item

    async def _ask(self, fields: dict[str, Any], recording: Recording | None) -> Answer:
        """The model's items as they come. An answer is kept before its last item leaves: with it the caller may go."""
        async with aclosing(self.stream(f"{self._model}.chat", **fields)) as items:
            async for item in items:
                if recording is not None:
                    recording.add(item)
                    if recording.is_whole:
                        self._responses.keep(recording, time.monotonic())
                yield item

    @contextmanager
    def _place(self) -> Iterator[None]:
        if self._asked >= MOST_ASKED:
            raise Overloaded(f"{MOST_ASKED} answers of '{self._model}' are under way already; try again later")
        self._asked += 1
        try:
            yield
        finally:
            self._asked -= 1

    def prefix(self, tokens: NDArray[np.int32], root: bytes = ROOT_KEY) -> Iterator[dict[str, Any]]:
        """The pages of the longest known beginning of a prompt, in order: {"tokens": valid rows, "kv": ndarray}.

        `tokens` are the n tokens of the prompt; `root` names the model that reads them, so that none gets pages of
        another. A model that must compute its last token itself leaves that one out.
        """
        if tokens.ndim != 1:
            raise MessageError(f"cache.prefix takes tokens in one row, not an array of shape {tokens.shape}")
        for valid, kv in self._prefixes.longest(tokens.tolist(), root):
            yield {"tokens": valid, "kv": kv}

    def store(self, parent: bytes, tokens: list[int], kv: np.ndarray, root: bytes = ROOT_KEY) -> bytes | None:
        """Keeps the page of keys and values of 1 to 32 tokens that follow the page with the key `parent`.

        `parent` is `root`, the model's name, for the first page of a prompt. Returns the page's key; None if it is not
        kept, for instance since its parent is not held any more. Raises MessageError for tokens that make no page.
        """
        return self._prefixes.keep(parent, tokens, kv, root)

    def shed(self, pages: int) -> int:
        """Forgets that many pages, for a model that has no memory left for new ones; returns how many there were."""
        return self._prefixes.shed(pages)

    async def describe(self) -> dict[str, Any]:
        """What the model says of itself, and under "cache" this actor's numbers: {name: number}."""
        left_s = self.context.time_left_s()
        # Sooner than whoever asks gives up, so that the error names the model.
        timeout_s = None if left_s is None else 0.8 * left_s
        about: dict[str, Any] = await self.call(f"{self._model}.describe", timeout_s=timeout_s)
        parts = {"responses": self._responses.stats(), "prefixes": self._prefixes.stats()}
        numbers = {f"{part}_{name}": number for part, stats in parts.items() for name, number in stats.items()}
        return {**about, "cache": {**numbers, "asked": self._asked}}


def _as_cached(item: Item) -> dict[str, Any]:
    """An item of a kept answer. The last one says that no token of the prompt was computed."""
    cached = {"cached_tokens": item["prompt_tokens"]} if "finish_reason" in item else {}
    return {**item, **cached}
