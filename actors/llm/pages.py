"""Keys and values on their way to and from a cache of prefixes, in pages of some tokens each."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from contextlib import aclosing
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.actor.actor import Actor
from ...runtime.errors import MessageError, OutOfMemory, SlabwireError, UnknownPort
from ..completion import PAGE_TOKENS
from .engine.engine import Engine
from .engine.sequence import Sequence

logger = logging.getLogger("slabwire")

# A cache that is being started again must not hold requests up for longer than their prompts would take.
WITHIN_S = 0.5
# After a failure the cache is left alone for so long, twice as long after each further one.
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
# A lane lends 512 blocks at a time, and a stream runs ahead of its reader by 64 items.
MOST_LOOKUPS = 2


class PageStore:
    """Asks the actor `cache` for pages, and offers it new ones, on behalf of `actor`. One loop.

    `root` names the model and how it is computed: no other gets these pages. A cache that does not answer costs time,
    never an answer: `failures` counts what it cost.
    """

    def __init__(self, actor: Actor, cache: str, engine: Engine, root: bytes) -> None:
        self._actor = actor
        self._cache = cache
        self._engine = engine
        self._root = root
        self._lookups = asyncio.Semaphore(MOST_LOOKUPS)
        self._tasks: set[asyncio.Task[None]] = set()
        self._pause_s = 0.0
        self._asleep_until = 0.0
        self.failures = 0

    async def check(self) -> None:
        """Raises UnknownPort if there is no such cache in the graph; one that does not answer yet is fine."""
        try:
            await self._shed(0)
        except UnknownPort:
            raise
        except SlabwireError as error:
            logger.info("the prefix cache %s does not answer yet: %s", self._cache, error)

    async def load(self, sequence: Sequence) -> None:
        """Fills the slot of a sequence with what the cache knows of the beginning of its prompt."""
        if time.monotonic() < self._asleep_until:
            return
        prompt = np.array(sequence.prompt, np.int32)
        try:
            async with self._lookups:
                stream = self._actor.stream(f"{self._cache}.prefix", prompt, root=self._root, timeout_s=WITHIN_S)
                async with aclosing(stream) as items:
                    async for item in items:
                        # Copied at once, so that the lease ends: others wait for its row.
                        self._engine.load(sequence, self._rows(item), item["tokens"])
        except SlabwireError as error:
            self._failed(error)
        else:
            self._pause_s = 0.0

    def _rows(self, item: dict[str, Any]) -> NDArray[np.float32]:
        rows: NDArray[np.float32] = item["kv"]
        if rows.shape != self._shape or rows.dtype != np.float32 or not 1 <= item["tokens"] <= PAGE_TOKENS:
            raise MessageError(f"{self._cache} has a page of shape {rows.shape}, this model's have {self._shape}")
        return rows

    @property
    def _shape(self) -> tuple[int, ...]:
        tensors, _, heads, _, components = self._engine.slots.array.shape
        return tensors, heads, PAGE_TOKENS, components

    def offer(self, sequence: Sequence) -> None:
        """Copies what the cache does not have out of the slot of a sequence that has ended, and sends it off."""
        if time.monotonic() < self._asleep_until or len(self._tasks) >= self._engine.slots.count:
            return
        tokens = sequence.tokens[: sequence.done]
        pages: dict[int, NDArray[np.float32]] = {}
        wanted = range(sequence.cached // PAGE_TOKENS, -(-len(tokens) // PAGE_TOKENS))
        try:
            for number in wanted:
                pages[number] = self._copy(sequence.slot, number * PAGE_TOKENS, len(tokens))
        except OutOfMemory as error:
            logger.info("pages of a prefix found no memory, the cache is asked for some of its own: %s", error)
        # Its own context: it may outlive the request, and its deadline.
        task = asyncio.get_running_loop().create_task(
            self._send(tokens, pages, missing=len(wanted) - len(pages)), context=contextvars.Context()
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _copy(self, slot: int, start: int, end: int) -> NDArray[np.float32]:
        page: NDArray[np.float32] = self._actor.loan(self._shape, np.float32)
        self._engine.slots.save(slot, start, min(PAGE_TOKENS, end - start), page)
        return page

    async def _send(self, tokens: list[int], pages: dict[int, NDArray[np.float32]], missing: int) -> None:
        """All at once: a page names the one before it, and the lane keeps their order."""
        parents = keys_of(tokens, self._root)
        try:
            await asyncio.gather(
                *(
                    self._actor.call(
                        f"{self._cache}.store",
                        parents[number],
                        tokens[number * PAGE_TOKENS : (number + 1) * PAGE_TOKENS],
                        page,
                        root=self._root,
                        timeout_s=WITHIN_S,
                    )
                    for number, page in pages.items()
                )
            )
            if missing:
                # And as much again as the longest conversation takes, so that the next one finds room at once.
                await self._shed(missing + self._engine.slots.context // PAGE_TOKENS)
        except SlabwireError as error:
            self._failed(error)

    async def _shed(self, pages: int) -> None:
        await self._actor.call(f"{self._cache}.shed", pages, timeout_s=WITHIN_S)

    def _failed(self, error: SlabwireError) -> None:
        self.failures += 1
        if time.monotonic() < self._asleep_until:
            return  # of the same outage, asked before it was known
        self._pause_s = min(LONGEST_PAUSE_S, 2 * self._pause_s or FIRST_PAUSE_S)
        self._asleep_until = time.monotonic() + self._pause_s
        logger.warning("the prefix cache %s is left alone for %g s: %s", self._cache, self._pause_s, error)

    def close(self) -> None:
        """Nothing more is sent."""
        for task in self._tasks:
            task.cancel()


def keys_of(tokens: list[int], root: bytes) -> list[bytes]:
    """The keys of the pages before each page of `tokens`: the digest of a page's tokens behind its parent's key."""
    keys = [root]
    for start in range(0, len(tokens) - PAGE_TOKENS + 1, PAGE_TOKENS):
        piece = np.array(tokens[start : start + PAGE_TOKENS], "<i4").tobytes()
        keys.append(blake2b(keys[-1] + piece, digest_size=16).digest())
    return keys
