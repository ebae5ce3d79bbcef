"""Streams that calls send, at the end of the caller: pulled out of an iterable, no further ahead than they are read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Generator, Iterable
from typing import Any

from ...shm.bell import ROOM, WAITING_FOR, now_ns
from ...shm.producer import Producer
from ..error_text import described
from ..errors import HandlerError, MessageError, OutOfMemory, SlabwireError
from ..message.capacities import STREAM_WINDOW
from ..message.fast_path import encode_and_publish
from ..message.header import Kind
from ..message.payload import Payload, failure
from .endpoint import Endpoint

_ITEM = int(Kind.ITEM)
# A stream that always finds room hands over to the loop this often: others work there, and the answer may have come.
_YIELD_AFTER_NS = 500_000
# What stands in a request's header behind its deadline, and is nothing to an item: its cause.
_NO_CAUSE = (0, 0, 0)


class SentStream:
    """The stream of one call. `head` has the numbers of its records from `source` to the trace.

    Whoever sends it pulls an item by `pull`, outside of any lock, and publishes it by `push`. `error` is what the
    iterable has raised: the call ends with that. It is over when the call is. `can_go` may be asked in any thread.
    """

    __slots__ = (
        "_head", "_held", "_iterator", "_lacks_nbytes", "_lane", "_limit", "_sent", "_source", "_streams", "_task",
        "_waiter", "error", "has_ended", "is_over", "lacks_blocks",
    )  # fmt: skip

    def __init__(self, streams: SentStreams, lane: Producer, head: tuple[int, ...], source: Any) -> None:
        self.error: BaseException | None = None
        self.has_ended = self.is_over = self.lacks_blocks = False
        self._streams = streams
        self._lane = lane
        self._head = head
        self._source = source
        self._iterator: Any = None  # from the first pull on
        self._held: tuple[Kind, Any] | None = None  # was pulled, and is not published yet
        self._sent = self._limit = self._lacks_nbytes = 0
        self._task: asyncio.Task[None] | None = None
        self._waiter: asyncio.Future[None] | None = None

    def can_go(self) -> bool:
        """Whether one more record may go now."""
        if self.is_over or self.has_ended or self.lacks_blocks:
            return False
        if self._sent >= self._limit and (self._held is None or self._held[0] is Kind.ITEM):
            # The beginning of the handler counts as the first that is read: before it nothing is pulled.
            read = self._lane.items_read(self._head[5])
            self._limit = read - 1 + STREAM_WINDOW if read else 0
            if self._sent >= self._limit:
                return False
        return self._lane.waiting < self._lane.capacity

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
        except OutOfMemory as error:
            if self._sent + 1 <= self._lane.items_read(self._head[5]):  # nothing of ours will come back
                self._fail(error)
                self.push()
                return
            went, self._lacks_nbytes, self.lacks_blocks = False, self._streams.pool.used_nbytes, True
        except MessageError as error:
            self._fail(error)
            self.push()
            return
        if went:
            self._held = None
            self._sent += 1
            self.has_ended = kind is not Kind.ITEM

    def _publish(self, kind: Kind, value: Any) -> bool:
        """False where the lane has no room for it."""
        pool, lane = self._streams.pool, self._lane
        head = *self._head, now_ns(), *_NO_CAUSE
        if kind is Kind.ITEM and encode_and_publish(value, pool, lane, _ITEM, 0, head):
            return True
        payload = failure(value, "a caller", pool) if kind is Kind.ERROR else Payload(value, pool)
        if not payload.can_go(lane):
            self.lacks_blocks = payload.holder is not None and not lane.can_lend()
            return False
        payload.publish(lane, kind, 0, head)
        payload.close()
        return True

    def look_for_blocks(self) -> None:
        """Whether blocks have come back since it lacked one. By whoever has the lanes."""
        if self._lane.can_lend():
            self._streams.pool.take_back()
            if not self._lacks_nbytes or self._streams.pool.used_nbytes < self._lacks_nbytes:
                self.lacks_blocks, self._lacks_nbytes = False, 0

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
            self._streams.waiting.pop(self, None)

    def wait(self) -> None:
        """It goes on when there is room."""
        if not (self.has_ended or self.is_over):
            self._streams.wait(self)
            if self.is_over:  # another thread has received the answer meanwhile
                self._streams.waiting.pop(self, None)

    def go_on(self) -> None:
        """There is room."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # -- the end -----------------------------------------------------------------------------------------------------

    def end(self) -> None:
        """The call is over: nobody wants more."""
        self.is_over = True
        self._streams.waiting.pop(self, None)
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


class SentStreams:
    """Those of one caller: `lanes` has the lanes for items by actor instance, `waiting` those that wait for room.

    On `loop`, where there is one, a task sends each; else whoever waits for the answer. One thread at a time, beside
    `can_go` and `wait`.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.lanes: dict[str, Producer] = {}
        self.waiting: dict[SentStream, None] = {}
        self.loop: asyncio.AbstractEventLoop | None = None
        self._endpoint = endpoint
        self.pool = endpoint.pool

    def check(self, target: str, field: str, source: Any) -> None:
        """Raises MessageError for a source that this caller cannot pull."""
        if self.loop is None and not isinstance(source, Iterable):
            raise MessageError(
                f"{target}: field '{field}': a blocking client cannot wait for an asynchronous iterable, which "
                f"{type(source).__name__} is; give it a plain one, or use slabwire.connect_async"
            )

    def begin(self, instance: str, head: tuple[int, ...], source: Any) -> SentStream:
        """The stream of a call that was sent to an instance, with the numbers of its header up to the trace."""
        stream = SentStream(self, self.lanes[instance], head, source)
        if self.loop is not None:
            stream.begin_task(self.loop)
        return stream

    def wait(self, stream: SentStream) -> None:
        """A stream goes on when there is room. If this process sleeps, it is to be called for that too."""
        if stream not in self.waiting:
            self.waiting[stream] = None
            own = self._endpoint.ringers.get(self._endpoint.identifier)
            if own is not None and own.words[WAITING_FOR] and not own.words[WAITING_FOR] & ROOM:
                own.ring_always()

    def can_go(self) -> bool:
        """Whether one of those that wait has room now, as far as may be seen in any thread."""
        return any(each.can_go() for each in tuple(self.waiting))

    def admit(self) -> bool:
        """Lets those go on for which there is room; True if there was any."""
        admitted = False
        for each in tuple(self.waiting):
            if each.lacks_blocks:
                each.look_for_blocks()
            if each.can_go():
                self.waiting.pop(each, None)
                each.go_on()
                admitted = True
        return admitted
