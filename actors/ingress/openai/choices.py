"""The answers to one request as they come from a chat port: one stream for each of its choices."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

from ....runtime.actor.stream_group import IncomingStream, StreamGroup
from ....runtime.errors import Interrupted
from ...completion import Finished, Item
from .chat_request import ChatRequest

# Takes the number of a choice, and what has come of it: pieces (Delta), and perhaps its end (Finished).
Take = Callable[[int, Sequence[Item]], None]


class Choice:
    """One stream of a chat port: what it says first, then its pieces, then its end. `came` is told by the group."""

    __slots__ = ("_choices", "ending", "index", "is_accepted", "stream")

    def __init__(self, choices: Choices, index: int, stream: IncomingStream) -> None:
        self.stream = stream
        self.is_accepted = False
        self.ending: Finished | None = None
        self._choices = choices
        self.index = index

    def came(self, items: list[Any]) -> None:
        """Some of its items, perhaps none where its stream is over."""
        if items and not self.is_accepted:
            self.is_accepted = True
            del items[0]  # the model has taken the request on
            self._choices.changed.set()
        if items and self.ending is None:
            for each in items:
                if "finish_reason" in each:
                    self.ending = each
                    break
            self._choices.hand_on(self, items)
        if self.ending is not None:
            self._choices.changed.set()
        elif self.stream.is_over:
            self._choices.fail(self.stream.error)


class Choices:
    """All choices of a request. An error of one ends all, and is raised."""

    def __init__(self, actor: str) -> None:
        self.changed = asyncio.Event()
        self._each: list[Choice] = []
        self._actor = actor
        self._take: Take | None = None
        self._held: list[tuple[Choice, list[Item]]] = []  # what has come before anybody takes it
        self._error: BaseException | None = None

    async def begin(self, group: StreamGroup, asked: ChatRequest, timeout_s: float) -> None:
        """Begins the streams. Raises what `StreamGroup.begin` does."""
        for index in range(asked.n):
            stream = group.begin(f"{self._actor}.chat", timeout_s=timeout_s, **asked.fields(index))
            stream.tag = Choice(self, index, stream)
            self._each.append(stream.tag)
            await asyncio.sleep(0)  # each packs the whole request: others have their turn in between

    def close(self) -> None:
        """Ends the streams."""
        for each in self._each:
            each.stream.cancel()

    def pause(self) -> None:
        """Takes no more than is on its way, of any choice."""
        for each in self._each:
            each.stream.pause()

    def resume(self) -> None:
        """Takes `pause` back."""
        for each in self._each:
            each.stream.resume()

    async def accepted(self) -> None:
        """Waits until the model has taken on all of them. Raises why it has not."""
        await self._until(lambda: all(each.is_accepted for each in self._each))

    async def follow(self, take: Take) -> list[Finished]:
        """Hands on the pieces and ends of all, as they come; gives the ends, by choice. Raises what ended one early."""
        self._take = take
        held, self._held = self._held, []
        for choice, items in held:  # also where an error has come behind them
            take(choice.index, items)
        if held:
            self.resume()
        await self._until(lambda: self._error is not None or all(each.ending is not None for each in self._each))
        if self._error is not None:
            raise self._error
        return [cast(Finished, each.ending) for each in self._each]

    # -- what comes --------------------------------------------------------------------------------------------------

    def hand_on(self, choice: Choice, items: list[Item]) -> None:
        """Items of a choice, to whoever takes them."""
        if self._take is None:
            self._held.append((choice, items))
            choice.stream.pause()
            return
        if self._error is not None:
            return
        try:
            self._take(choice.index, items)
        except Exception as error:
            self.fail(error)

    def fail(self, error: BaseException | None) -> None:
        """One has ended before its time; None: it does not say why."""
        if self._error is None:
            text = f"actor '{self._actor}' ended its answer without saying why; see its log"
            self._error = error or Interrupted(text)
        self.changed.set()

    async def _until(self, is_so: Callable[[], bool]) -> None:
        while not is_so():
            if self._error is not None:
                raise self._error
            self.changed.clear()
            await self.changed.wait()


def came(stream: IncomingStream, items: list[Any]) -> None:
    """For a group of streams that are all of choices: what has come of one."""
    stream.tag.came(items)


@asynccontextmanager
async def open_choices(group: StreamGroup, actor: str, asked: ChatRequest, timeout_s: float) -> AsyncIterator[Choices]:
    """The choices of a request that `actor` answers; their streams are ended when the block is left, however it is."""
    choices = Choices(actor)
    try:
        await choices.begin(group, asked, timeout_s)
        yield choices
    finally:
        choices.close()
