"""A stream that a call sends, at the end of the caller: pulled out of an iterable, no further ahead than it is read."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Generator, Iterable
from typing import Any

from ...shm.bell import now_ns
from ..error_text import described
from ..errors import HandlerError, MessageError, OutOfMemory, SlabwireError
from .header import Kind

# A stream that always finds room hands over to the loop this often: others work there, and the answer may have come.
_YIELD_AFTER_NS = 500_000


class PacedSource(AsyncIterator[Any]):
    """A source whose items are far away, so that they set out before they are asked for."""

    @abstractmethod
    def begin(self, read: Callable[[], int]) -> None:
        """It is being sent. `read()` says how many items were read, and counts the beginning of the handler as the
        first; 0 before that.
        """

    @abstractmethod
    def can_give(self) -> bool:
        """Whether one more may be pulled: not while what was pulled and not read takes too much memory."""


class SentStream(ABC):
    """The stream of one call.

    Whoever sends it pulls an item by `pull`, outside of any lock, and publishes it by `push`. `error` is what the
    iterable has raised: the call ends with that. It is over when the call is. `can_go` may be asked in any thread.
    """

    __slots__ = ("_held", "_iterator", "_source", "_task", "_waiter", "error", "has_ended", "is_over")

    def __init__(self, source: Any) -> None:
        self.error: BaseException | None = None
        self.has_ended = self.is_over = False
        self._source = source
        self._iterator: Any = None  # from the first pull on
        self._held: tuple[Kind, Any] | None = None  # was pulled, and is not published yet
        self._task: asyncio.Task[None] | None = None
        self._waiter: asyncio.Future[None] | None = None

    @abstractmethod
    def can_go(self) -> bool:
        """Whether one more item, or the end, may go now."""

    @abstractmethod
    def _publish(self, kind: Kind, value: Any) -> bool:
        """Sends it; False where there is no room. Raises MessageError, or OutOfMemory where none will ever be."""

    @abstractmethod
    def wait(self) -> None:
        """There is no room: it goes on, by `go_on`, when there is."""

    def pull(self) -> None:
        """Takes the next item out of an iterable that is not asynchronous."""
        if self._held is not None:
            return
        try:
            if self._iterator is None:
                self._iterator = iter(self._source)
            self._held = Kind.ITEM, next(self._iterator)
        except StopIteration:
            self._held = Kind.END, None
        except Exception as error:
            self._fail(error)

    async def _pull_async(self) -> None:
        if self._held is not None:
            return
        try:
            if self._iterator is None:
                self._iterator = aiter(self._source)
            self._held = Kind.ITEM, await anext(self._iterator)
        except StopAsyncIteration:
            self._held = Kind.END, None
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if self.is_over or (task is not None and task.cancelling()):
                raise
            self._fail(error)  # what it has awaited was cancelled
        except Exception as error:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        self.error = error
        reported = (
            error if isinstance(error, SlabwireError) else HandlerError(f"the caller's stream: {described(error)}")
        )
        self._held = Kind.ERROR, reported

    def push(self) -> None:
        """Publishes what was pulled, if there is room. What no message carries ends the stream with an error."""
        if self._held is None or self.is_over:
            return
        kind, value = self._held
        try:
            went = self._publish(kind, value)
        except (MessageError, OutOfMemory) as error:
            self._fail(error)
            self.push()
            return
        if went:
            self._held = None
            self.has_ended = kind is not Kind.ITEM

    # -- on a loop ---------------------------------------------------------------------------------------------------

    def begin_task(self, loop: asyncio.AbstractEventLoop) -> None:
        """From here on a task sends it."""
        # Not by the loop, whose way in a worker is that of tasks which actors begin for themselves.
        self._task = asyncio.Task(self._send(), loop=loop)

    async def _send(self) -> None:
        is_async = isinstance(self._source, AsyncIterable)
        went_on_ns = now_ns()
        try:
            while not (self.has_ended or self.is_over):
                if not self.can_go():
                    await self._room()
                elif is_async:
                    await self._pull_async()
                    self.push()
                else:
                    self.pull()
                    self.push()
                if now_ns() - went_on_ns > _YIELD_AFTER_NS:
                    await asyncio.sleep(0)
                    went_on_ns = now_ns()
        finally:
            if isinstance(self._iterator, AsyncGenerator):
                await self._iterator.aclose()
            else:
                self.close()

    async def _room(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        self.wait()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def go_on(self) -> None:
        """There is room."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # -- the end -----------------------------------------------------------------------------------------------------

    def end(self) -> None:
        """The call is over: nobody wants more."""
        self.is_over = True
        if self._task is not None:
            self._task.cancel()

    async def closed(self) -> None:
        """Until its task has closed the iterator. Raises what closing that raises."""
        if self._task is not None:
            await asyncio.wait([self._task])
            if not self._task.cancelled():
                self._task.result()

    def close(self) -> None:
        """Closes a generator that was begun. One that was not is left to another attempt at the call."""
        if isinstance(self._iterator, Generator):
            self._iterator.close()


def check_plain(target: str, field: str, source: Any) -> None:
    """For a caller without a loop. Raises MessageError for a source that it cannot pull."""
    if not isinstance(source, Iterable):
        raise MessageError(
            f"{target}: field '{field}': a blocking client cannot wait for an asynchronous iterable, which "
            f"{type(source).__name__} is; give it a plain one, or use slabwire.connect_async"
        )
