"""A stream of replies that a handler leaves to its actor, whose own loop makes the items."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class ReplyStream(ABC, Generic[T]):
    """The answer of one request, which goes on after its handler has returned.

    A handler annotated with it returns `self.reply_stream()`. The actor then sends items with `self.publish`, one call
    a step for all its streams, or with `send`. The stream ends with `end` or `fail`, or when nobody wants it any more:
    its caller has cancelled it or is gone, its deadline has passed, or the graph has cut it off. `tag` is free for the
    actor's use. The worker's thread alone may use it.
    """

    __slots__ = ("tag",)
    tag: Any

    @property
    @abstractmethod
    def is_open(self) -> bool:
        """Whether more items may be sent. Items for a stream that is over go nowhere."""

    @property
    @abstractmethod
    def room(self) -> int:
        """How many items its reader has room for now. A stream without room is to be left out of the next step: items
        that it is given all the same wait here, and behind 64 of these the stream fails with Overloaded.
        """

    @abstractmethod
    async def wait_for_room(self) -> None:
        """Waits until there is room for an item, or the stream is over."""

    @abstractmethod
    def send(self, item: T) -> None:
        """Sends one item. Raises MessageError for a value that no message carries, OutOfMemory."""

    @abstractmethod
    def end(self) -> None:
        """There are no more items. Nothing where the stream is over."""

    @abstractmethod
    def fail(self, error: BaseException) -> None:
        """Ends the stream with an error, as if the handler had raised it. Nothing where the stream is over."""

    @abstractmethod
    def add_done_callback(self, callback: Callable[[ReplyStream[T]], object]) -> None:
        """`callback(stream)` is called by the event loop, soon after the stream is over, for whatever reason; at once
        where it is over already.
        """
