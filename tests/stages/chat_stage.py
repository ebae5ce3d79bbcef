"""A language model for tests: it streams counted text as its last message says, and asks a cache for pages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np

from slabwire import Actor, ReplyStream
from slabwire.actors.completion import PAGE_TOKENS, PromptTooLong

PAGE_SHAPE = (60, 3, PAGE_TOKENS, 64)  # keys and values of 30 layers with 3 heads of 64 numbers: 1.47 MB


class CountingModel(Actor):
    """Answers "count n" with n numbers; "count n cut" does not say why it ended, "count n fail" fails at last.

    "count n stay" stays at the last number until its caller leaves, and then writes a file `closed`.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.asked = 0
        self.counting: set[asyncio.Task[None]] = set()

    async def on_start(self) -> None:
        self.loop = asyncio.get_running_loop()

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
        self.asked += 1
        _, number, *manner = messages[-1]["content"].split()
        if manner == ["long"]:
            raise PromptTooLong("a prompt of 9000 tokens; 8192 fit")
        stream: ReplyStream[dict[str, Any]] = self.reply_stream()
        task = self.loop.create_task(self._count(stream, self.asked, int(number), manner))
        self.counting.add(task)
        task.add_done_callback(self.counting.discard)
        return stream

    async def _count(self, stream: ReplyStream[dict[str, Any]], asked: int, number: int, manner: list[str]) -> None:
        texts: list[dict[str, Any]] = [{"text": f" {asked}.{i}", "tokens": 1} for i in range(number)]
        for item in [{"prompt_tokens": 7}, *texts]:
            await stream.wait_for_room()
            self.publish([(stream, item)])
        if manner == ["fail"]:
            stream.fail(RuntimeError("ran out of numbers"))
        elif manner == ["cut"]:
            stream.end()
        elif manner == ["stay"]:
            stream.add_done_callback(lambda _: (self.folder / "closed").touch())
        else:
            await stream.wait_for_room()
            usage = {"prompt_tokens": 7, "completion_tokens": number, "cached_tokens": 3}
            self.publish([(stream, {"finish_reason": "stop", **usage})], ended=[stream])

    def times_asked(self) -> int:
        return self.asked

    def describe(self) -> dict[str, Any]:
        return {"model": "counting", "context": 8192, "stats": {"asked": self.asked}}


class CuriousModel(Actor):
    """Asks its cache for pages before it answers, as a language model does."""

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
        yield {"prompt_tokens": 5}
        known = [page async for page in self.stream("prefixes.prefix", np.arange(5, dtype=np.int32))]
        yield {"finish_reason": "stop", "prompt_tokens": 5, "completion_tokens": 0, "cached_tokens": len(known)}


class PageOwner(Actor):
    """Loans pages, lets the cache keep them, and looks at what it gets back."""

    async def offer(self, prompt: list[int]) -> list[bytes | None]:
        """Keeps a page for each 32 tokens of a prompt, filled with its tokens; returns their keys."""
        keys: list[bytes | None] = []
        for at in range(0, len(prompt), PAGE_TOKENS):
            tokens = prompt[at : at + PAGE_TOKENS]
            parent = keys[-1] if keys else b""
            if parent is None:
                break
            page = self.loan(PAGE_SHAPE, np.float32)
            page[:, :, : len(tokens)] = np.array(tokens, np.float32)[:, None]
            keys.append(await self.call("prefixes.store", parent=parent, tokens=tokens, kv=page))
        return keys

    async def known(self, prompt: list[int]) -> int:
        """For how many tokens of a prompt the cache has rows. Raises ValueError if one of them is not as it was."""
        known = 0
        async for page in self.stream("prefixes.prefix", np.array(prompt, np.int32)):
            tokens = np.array(prompt[known : known + page["tokens"]], np.float32)
            if page["kv"].shape != PAGE_SHAPE or not np.all(page["kv"][:, :, : page["tokens"]] == tokens[:, None]):
                raise ValueError(f"the page at token {known} has other rows")
            known += page["tokens"]
        return known

    async def borrow(self, prompt: list[int]) -> int:
        """Keeps the pages that the cache has for a prompt until `look` is called; returns how many."""
        self.borrowed = [page["kv"] async for page in self.stream("prefixes.prefix", np.array(prompt, np.int32))]
        return len(self.borrowed)

    def look(self) -> list[float]:
        """The first number of each page that was borrowed, which go back now."""
        first = [float(page[0, 0, 0, 0]) for page in self.borrowed]
        self.borrowed = []
        return first

    def touch(self) -> None:
        """Takes a block: then a process also looks for those that came back."""
        self.loan(1, np.uint8)
