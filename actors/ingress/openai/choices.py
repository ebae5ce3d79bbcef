"""The answers to one request as they come from a chat port: one stream for each of its choices."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Any, cast

from ....runtime.errors import Interrupted
from ...completion import Finished, Item
from ..requests.serving import Ask
from ..requests.together import Together, all_of
from .chat_request import ChatRequest

# Takes the number of a choice, and a piece of it (Delta) or its end (Finished).
Take = Callable[[int, Item], Awaitable[None]]


class Choice:
    """One stream of a chat port: what it says first, then its pieces, then its end."""

    def __init__(self, index: int, actor: str, items: AsyncGenerator[Any, None]) -> None:
        self.index = index
        self._actor = actor
        self._items = items

    async def accepted(self) -> None:
        """Waits until the model has taken the request on. Raises why it has not."""
        try:
            await anext(self._items)
        except StopAsyncIteration:
            raise self._broken() from None

    async def follow(self, take: Take) -> Finished:
        """Hands each piece, and then the end, to `take`; gives the end. Raises what ended it early."""
        async for item in self._items:
            await take(self.index, item)
            if "finish_reason" in item:
                return cast(Finished, item)
        raise self._broken()

    def _broken(self) -> Interrupted:
        return Interrupted(f"actor '{self._actor}' ended its answer without saying why; see its log")


class Choices:
    """All choices of a request. An error of one ends all, and is raised."""

    def __init__(self, each: list[Choice]) -> None:
        self._each = each

    async def accepted(self) -> None:
        """Waits until the model has taken on all of them."""
        async with Together() as group:
            for choice in self._each:
                group.create_task(choice.accepted())
                await asyncio.sleep(0)  # each packs the whole request: others have their turn in between

    async def follow(self, take: Take) -> list[Finished]:
        """Hands on the pieces and ends of all, as they come; gives the ends, by choice."""
        return await all_of(choice.follow(take) for choice in self._each)


@asynccontextmanager
async def open_choices(ask: Ask, actor: str, asked: ChatRequest, timeout_s: float) -> AsyncIterator[Choices]:
    """The choices of a request that `actor` answers; their streams are closed when the block is left, however it is."""
    async with AsyncExitStack() as streams:
        each = []
        for index in range(asked.n):
            items = ask.stream(f"{actor}.chat", timeout_s=timeout_s, **asked.fields(index))
            each.append(Choice(index, actor, await streams.enter_async_context(aclosing(items))))
        yield Choices(each)
