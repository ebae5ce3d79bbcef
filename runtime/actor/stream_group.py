"""Any number of streams that are read together: what their reader sees of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from typing import Any, Self


class IncomingStream(ABC):
    """One stream of a `StreamGroup`. `tag` is free for the reader's use.

    `is_over`: whether nothing comes any more, but for items that were not taken yet. `error`: what the stream has ended
    with; None where it goes on, and where it has come to its end. Both are for the reader to read.
    """

    __slots__ = ("error", "is_over", "tag")
    tag: Any
    is_over: bool
    error: BaseException | None

    @abstractmethod
    def cancel(self) -> None:
        """Ends the stream and the work behind it: nothing of it is delivered any more. Idempotent."""

    @abstractmethod
    def pause(self) -> None:
        """Keeps the sender from sending more: at most 64 items come that are on their way already. Where `on_items`
        says so of the items at hand, these count among the 64.
        """

    @abstractmethod
    def resume(self) -> None:
        """Takes `pause` back."""


# Called with a stream and the items that have come of it since the last call, perhaps none where it is over.
OnItems = Callable[[IncomingStream, list[Any]], object]


class StreamGroup(ABC):
    """Reads streams of other ports together: all items that one wake-up brings are handled in one pass.

    With `on_items` that is called for each stream that something has come of, as `on_items(stream, items)`. Without it
    `async for stream, items in group` gives the same. `items` is empty at most where the stream is over, which
    `stream.is_over` then says, and `stream.error` why. An exception that `on_items` raises is reported to the event
    loop, and the other streams go on. One thread, that of the loop.

    A group lives until it is closed: one for a single request belongs in an `async with`. A stream that a handler
    begins has the deadline and the trace of the handler's request.
    """

    @abstractmethod
    def begin(self, target: str, /, *args: Any, timeout_s: float | None = None, **fields: Any) -> IncomingStream:
        """Begins a stream of port `target`. Raises UnknownPort, MessageError, OutOfMemory, Disconnected, or Overloaded
        where as many calls are in flight as the graph allows. After `timeout_s` the stream ends with DeadlineExceeded.
        """

    @abstractmethod
    def __len__(self) -> int:
        """How many streams are not over."""

    @abstractmethod
    def __aiter__(self) -> AsyncIterator[tuple[IncomingStream, list[Any]]]: ...

    @abstractmethod
    async def __anext__(self) -> tuple[IncomingStream, list[Any]]:
        """The next stream that something has come of, with its items. Ends when the group is closed."""

    @abstractmethod
    def close(self) -> None:
        """Cancels all streams."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
