"""Keys and values on their way to and from a cache of prefixes, in pages of some tokens each."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from contextlib import aclosing
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from ...runtime.actor import Actor
from ...runtime.errors import OutOfMemory, SlabwireError
from ..completion import PAGE_TOKENS
from .sequence import Page, Sequence
from .slots import Slots

logger = logging.getLogger("slabwire")

# A cache that is being started again must not hold requests up for longer than their prompts would take.
WITHIN_S = 0.5


class PageStore:
    """Asks the actor `cache` for pages, and offers it new ones, on behalf of `actor`. One loop.

    A cache that does not answer costs time, never an answer: `failures` counts what it cost.
    """

    def __init__(self, actor: Actor, cache: str, slots: Slots) -> None:
        self._actor = actor
        self._cache = cache
        self._slots = slots
        self._tasks: set[asyncio.Task[None]] = set()
        self.failures = 0

    async def known(self, prompt: list[int]) -> list[Page]:
        """Pages for the longest beginning of the prompt that the cache knows."""
        stream = self._actor.stream(f"{self._cache}.prefix", np.array(prompt, np.int32), timeout_s=WITHIN_S)
        try:
            async with aclosing(stream) as items:
                return [Page(item["tokens"], item["kv"]) async for item in items]
        except SlabwireError as error:
            self._failed(error)
            return []

    def offer(self, sequence: Sequence) -> None:
        """Copies what the cache does not have out of the slot of a sequence that has ended, and sends it off."""
        tokens = sequence.tokens[: sequence.done]
        first = sequence.cached // PAGE_TOKENS * PAGE_TOKENS
        try:
            pages = [
                (start, self._copy(sequence.slot, start, len(tokens)))
                for start in range(first, len(tokens), PAGE_TOKENS)
            ]
        except OutOfMemory as error:
            self._failed(error)
            return
        # Its own context: it may outlive the request, and its deadline.
        task = asyncio.get_running_loop().create_task(self._send(tokens, pages), context=contextvars.Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _copy(self, slot: int, start: int, end: int) -> NDArray[np.float32]:
        layers, _, heads, _, components = self._slots.array.shape
        page: NDArray[np.float32] = self._actor.loan((layers, heads, PAGE_TOKENS, components), np.float32)
        self._slots.save(slot, start, min(PAGE_TOKENS, end - start), page)
        return page

    async def _send(self, tokens: list[int], pages: list[tuple[int, NDArray[np.float32]]]) -> None:
        parents = keys_of(tokens)
        try:
            for start, page in pages:
                piece = tokens[start : start + PAGE_TOKENS]
                parent = parents[start // PAGE_TOKENS]
                if await self._actor.call(f"{self._cache}.keep", parent, piece, page, timeout_s=WITHIN_S) is None:
                    return
        except SlabwireError as error:
            self._failed(error)

    def _failed(self, error: SlabwireError) -> None:
        self.failures += 1
        if self.failures & (self.failures - 1) == 0:  # the 1st, 2nd, 4th, ...: a log must not grow with every request
            logger.warning("the prefix cache %s was of no use %d times: %s", self._cache, self.failures, error)


def keys_of(tokens: list[int]) -> list[bytes]:
    """The keys of the pages before each page of `tokens`: the digest of a page's tokens behind its parent's key."""
    keys = [b""]
    for start in range(0, len(tokens) - PAGE_TOKENS + 1, PAGE_TOKENS):
        piece = np.array(tokens[start : start + PAGE_TOKENS], "<i4").tobytes()
        keys.append(blake2b(keys[-1] + piece, digest_size=16).digest())
    return keys
