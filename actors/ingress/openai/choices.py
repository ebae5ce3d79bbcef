"""The answers to one request as they come from a chat port: one stream for each of its choices."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

from ....runtime.actor.stream_group import IncomingStream, StreamGroup
from ....runtime.errors import DeadlineExceeded, Interrupted
from ...completion import Finished, Item
from .chat_request import ChatRequest

# Takes the number of a choice, and what has come of it: pieces (Delta), and perhaps its end (Finished).
Take = Callable[[int, Sequence[Item]], None]


class Hearer(Protocol):
    """The tag of each stream: who hears what comes of it."""

    def came(self, items: Sequence[Item], is_over: bool, /) -> None:
        """Some of its items, perhaps none where its stream is over."""


class Choice:
    """One stream of a chat port: what it says first, then its pieces, then its end. It hears of all that comes, until
    something has come; then `Choices.lead` may say who hears of mere pieces.
    """

    __slots__ = ("_choices", "ending", "index", "is_accepted", "stream")

    def __init__(self, choices: Choices, index: int, stream: IncomingStream) -> None:
        self.stream = stream
        self.is_accepted = False
        self.ending: Finished | None = None
        self._choices = choices
        self.index = index

    def came(self, items: Sequence[Item], is_over: bool = False) -> None:
        if items and not self.is_accepted:
            self.is_accepted = True
            items = items[1:]  # the model has taken the request on
            self._choices.look()
        if items and self.ending is None:
            for each in items:
                if "finish_reason" in each:
                    self.ending = cast(Finished, each)
                    break
            self._choices.hand_on(self, items)
        if self.ending is not None:
            self.stream.tag = self
            self._choices.look()
        elif is_over:
            self._choices.fail(self.stream.error)


class Choices:
    """All choices of a request. An error of one ends all, and so do `timeout_s`. What comes before it is led somewhere
    is held.
    """

    __slots__ = (
        *("_actor", "_due_s", "_each", "_error", "_held", "_over", "_pieces_of", "_take", "_timeout_s", "_waiter"),
    )

    def __init__(self, actor: str, timeout_s: float) -> None:
        self._each: list[Choice] = []
        self._actor = actor
        self._timeout_s = timeout_s
        self._due_s = asyncio.get_running_loop().time() + timeout_s
        self._take: Take | None = None
        self._pieces_of: Callable[[Choice], Hearer] | None = None
        self._over: Callable[[], None] | None = None
        self._held: list[tuple[Choice, Sequence[Item]]] | None = []
        self._error: BaseException | None = None
        self._waiter: asyncio.Future[None] | None = None

    async def begin(self, group: StreamGroup, asked: ChatRequest) -> None:
        """Begins the streams. Raises what `StreamGroup.begin` does."""
        time = asyncio.get_running_loop().time
        for index in range(asked.n):
            timeout_s = max(0.0, self._due_s - time())
            stream = group.begin(f"{self._actor}.chat", timeout_s=timeout_s, **asked.fields(index))
            stream.tag = Choice(self, index, stream)
            self._each.append(stream.tag)
            await asyncio.sleep(0)  # each packs the whole request: others have their turn in between

    def close(self) -> None:
        """Ends the streams. Nothing that comes is led anywhere any more."""
        self._take = self._over = self._pieces_of = None
        for each in self._each:
            each.stream.tag = each
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
        while not all(each.is_accepted for each in self._each):
            if self._error is not None:
                raise self._error
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        self._waiter = None

    def lead(self, take: Take, over: Callable[[], None], pieces_of: Callable[[Choice], Hearer] | None = None) -> None:
        """Hands on the pieces and ends of all, as they come; then calls `over` once, and `endings` tells how it ended.
        An error of `take` ends them as well. All have been accepted. `pieces_of` gives who hears what follows of a
        choice, for a lower price.
        """
        held, self._held = self._held or [], None
        self._take, self._over, self._pieces_of = take, over, pieces_of
        if held:
            self.resume()  # before anybody finds that there is no room for these
        for choice, items in held:  # also where an error has come behind them
            self._give(choice, items)
        self.look()

    async def follow(self, take: Take, pieces_of: Callable[[Choice], Hearer] | None = None) -> list[Finished]:
        """As `lead`, until they are over. Gives the ends, by choice. Raises what ended one early."""
        over = asyncio.Event()
        self.lead(take, over.set, pieces_of)
        await over.wait()
        return self.endings()

    def endings(self) -> list[Finished]:
        """The ends of all, by choice. Raises what ended one early."""
        if self._error is not None:
            raise self._error
        return [cast(Finished, each.ending) for each in self._each]

    # -- what comes --------------------------------------------------------------------------------------------------

    def hand_on(self, choice: Choice, items: Sequence[Item]) -> None:
        """Items of a choice, to whoever takes them."""
        if self._held is not None:
            self._held.append((choice, items))
            choice.stream.pause()
        elif self._error is None:
            self._give(choice, items)

    def _give(self, choice: Choice, items: Sequence[Item]) -> None:
        if self._take is None:  # they are closed
            return
        try:
            self._take(choice.index, items)
            if self._pieces_of is not None and choice.stream.tag is choice and choice.ending is None:
                choice.stream.tag = self._pieces_of(choice)
        except Exception as error:
            self.fail(error)

    def fail(self, error: BaseException | None) -> None:
        """One has ended before its time; None: it does not say why."""
        if self._error is None:
            text = f"actor '{self._actor}' ended its answer without saying why; see its log"
            is_late = isinstance(error, DeadlineExceeded) and asyncio.get_running_loop().time() >= self._due_s
            self._error = overdue(self._timeout_s) if is_late else error or Interrupted(text)
            for each in self._each:
                each.stream.tag = each
        self.look()

    def look(self) -> None:
        """Something has changed: whoever waits looks again, and is told if they are over."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        if self._over is not None and (self._error is not None or all(each.ending is not None for each in self._each)):
            over, self._over = self._over, None
            over()


def overdue(timeout_s: float) -> DeadlineExceeded:
    """The error of an answer that has taken too long."""
    return DeadlineExceeded(
        f"The answer was not complete after {timeout_s:g} s, the most that this server gives a request; "
        "ask for fewer tokens (max_tokens)."
    )


def came(stream: IncomingStream, items: list[Any]) -> None:
    """For a group of streams that are all of choices: what has come of one."""
    stream.tag.came(items, stream.is_over)
