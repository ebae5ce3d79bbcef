"""Runs of handlers that leave their answer to the actor's own loop, which makes items of many streams a step."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Iterable
from contextvars import copy_context
from typing import Any, cast

from ...shm.bell import now_ns
from ...shm.producer import Producer
from ..actor.delegation import Delegation
from ..actor.handler import Handler
from ..actor.reply_stream import ReplyStream
from ..errors import CorruptLane, DeadlineExceeded, HandlerError, MessageError, OutOfMemory, Overloaded, SlabwireError
from ..message.capacities import STREAM_WINDOW
from ..message.item_batch import ItemBatch, head_of, pack_item
from ..telemetry.flight_recorder import EXPIRED
from .answers import ENDS_PROCESS, Answers
from .input_states import RUNNING
from .outlets import Outlets
from .reply_lanes import StreamCredit
from .runs import HandlerRunner, Runs
from .work import Work, current


class OpenStream(ReplyStream[Any]):
    """The stream of one input. `producer` and `credit` are there where items go to the caller alone."""

    __slots__ = ("_callbacks", "_streams", "credit", "head", "producer", "work")

    def __init__(self, work: Work, streams: ReplyStreams) -> None:
        self.tag = None
        self.work = work
        self.head = head_of(work.header.request, work.sequence, work.lane)
        self.producer: Producer | None = None
        self.credit: StreamCredit | None = None
        self._streams = streams
        self._callbacks: list[Callable[[ReplyStream[Any]], object]] = []

    @property
    def is_open(self) -> bool:
        return self.work.state is RUNNING

    @property
    def room(self) -> int:
        return self._streams.room_of(self)

    async def wait_for_room(self) -> None:
        await self._streams.wait_for_room(self)

    def send(self, item: Any) -> None:
        self._streams.send(self, item)

    def end(self) -> None:
        self._streams.end(self)

    def fail(self, error: BaseException) -> None:
        self._streams.fail(self, error)

    def add_done_callback(self, callback: Callable[[ReplyStream[Any]], object]) -> None:
        if self._streams.has(self):
            self._callbacks.append(callback)
        else:
            callback(self)

    def take_callbacks(self) -> list[Callable[[ReplyStream[Any]], object]]:
        """Those to be called now that the stream is over."""
        callbacks, self._callbacks = self._callbacks, []
        return callbacks


# The batch of one caller, with what it is made of: stream, value, whether the stream then ends.
_Gathered = tuple[Producer, ItemBatch, list[tuple[OpenStream, Any, bool]]]


class ReplyStreams(HandlerRunner):
    """All reply streams of one actor instance. What one step makes for the streams of one caller goes as one record."""

    def __init__(self, runs: Runs, outlets: Outlets, answers: Answers) -> None:
        super().__init__(runs, outlets, answers)
        self._streams: dict[Work, OpenStream] = {}
        self._held: dict[Work, OpenStream] = {}  # those with items that wait for room
        self._waiting: dict[OpenStream, list[asyncio.Future[None]]] = {}  # for room
        self._deadlines: list[tuple[int, int, Work]] = []  # a heap; the second number tells equal ones apart
        self._begun = 0

    # -- the run of an input -----------------------------------------------------------------------------------------

    def start(self, work: Work, handler: Handler) -> None:
        """Runs the handler, which leaves a stream behind."""
        context = copy_context()
        context.run(current.set, work)
        started = now_ns()
        self._stats.begin(started)
        try:
            result = context.run(handler.function, **work.take_arguments(handler))
            if type(result) is Delegation and work.state is RUNNING and work not in self._streams:
                self._answers.give(work, handler, result)
                self._runs.done(work)
                return
            # A handler that has ended its stream itself has none any more.
            if work.state is RUNNING and (result is None or result is not self._streams.get(work)):
                raise HandlerError(
                    f"{handler.owner}.{handler.spec.port} returned {type(result).__name__}; a handler that "
                    "promises a ReplyStream returns self.reply_stream(), or self.delegate(...) before it has one"
                )
        except BaseException as error:
            self._answers.fail(work, error)
            self._close(work)
            self._runs.done(work)
        finally:
            self._stats.end(started, now_ns())

    def open(self, work: Work) -> OpenStream:
        """The stream of the input whose handler runs. Raises SlabwireError where it has none."""
        if work.handler is None or work.handler.spec.kind != "reply_stream" or work.state is not RUNNING:
            raise SlabwireError("self.reply_stream() is for a handler that is annotated -> ReplyStream[...]")
        stream = self._streams.get(work)
        if stream is None:
            stream = self._streams[work] = OpenStream(work, self)
            if deadline_ns := work.header.deadline_ns:
                self._begun += 1
                heapq.heappush(self._deadlines, (deadline_ns, self._begun, work))
        return stream

    def has(self, stream: OpenStream) -> bool:
        """Whether the stream is not over."""
        return stream.work in self._streams

    def stop(self, work: Work) -> bool:
        """Nobody wants the stream of an input any more; False: the input does not go on by itself."""
        self._close(work)
        return False

    def _close(self, work: Work) -> None:
        self._held.pop(work, None)
        stream = self._streams.pop(work, None)
        if stream is None:
            return
        for waiter in self._waiting.pop(stream, ()):
            if not waiter.done():
                waiter.set_result(None)
        for callback in stream.take_callbacks():
            try:
                callback(stream)
            except ENDS_PROCESS:
                raise
            except BaseException as error:
                self._answers.note(error, "a done callback of a reply stream raised")

    def end(self, stream: OpenStream) -> None:
        """The stream has no more items."""
        if stream.is_open:
            self._outlets.end_stream_of(stream.work, _port(stream))
            self._over(stream)

    def fail(self, stream: OpenStream, error: BaseException) -> None:
        """The stream ends with an error."""
        if stream.is_open:
            self._answers.fail(stream.work, error)
            self._over(stream)

    def _over(self, stream: OpenStream) -> None:
        self._runs.done(stream.work)
        self._close(stream.work)

    # -- items -------------------------------------------------------------------------------------------------------

    def send(self, stream: OpenStream, item: Any) -> None:
        """One item in a record of its own, or behind those of its stream that wait. Raises as `Outlets.send`."""
        work = stream.work
        if work.state is not RUNNING:
            return
        if len(work.outbox) >= STREAM_WINDOW:
            text = f"{len(work.outbox)} items wait for a reader that takes none; ask `room` before the next step"
            self._outlets.abandon(work)
            self.fail(stream, Overloaded(f"{_port(stream)}: {text}"))
            return
        self._outlets.send(work, _port(stream), item, item=True)
        if work.outbox:
            self._held[work] = stream
            self._runs.loop.stop()  # before it sleeps the worker must see who waits for what

    def publish(self, items: Iterable[tuple[ReplyStream[Any], Any]], ended: Iterable[ReplyStream[Any]] = ()) -> None:
        """What one step has made. An item that cannot be sent fails its own stream alone."""
        gathered: dict[int, _Gathered] = {}
        for stream, value in items:
            if isinstance(stream, OpenStream) and stream.work.state is RUNNING:
                self._gather(gathered, stream, value, is_end=False)
        for stream in ended:
            if isinstance(stream, OpenStream) and stream.work.state is RUNNING:
                self._gather(gathered, stream, None, is_end=True)
        for each in gathered.values():
            self._go(each)

    def _gather(self, gathered: dict[int, _Gathered], stream: OpenStream, value: Any, *, is_end: bool) -> None:
        """Puts an item into the batch of its caller, or sends it alone where it cannot travel in one."""
        work = stream.work
        if work.outbox or (stream.credit is None and not self._join(stream)):
            self._alone(gathered, stream, value, is_end=is_end)
            return
        producer, credit = cast(Producer, stream.producer), cast(StreamCredit, stream.credit)
        item = b""
        if not is_end:
            packed = None
            if credit.sent < credit.limit or credit.room(producer, work.header.request) > 0:
                try:
                    packed = pack_item(value)
                except MessageError:
                    packed = None  # sent alone, it says so in other words
            if packed is None:
                self._alone(gathered, stream, value, is_end=False)
                return
            item = packed
            credit.sent += 1
        batch = gathered.get(work.header.reply_to)
        if batch is None:
            batch = gathered[work.header.reply_to] = producer, ItemBatch(), []
        batch[1].add(stream.head, work.ordinal, item)
        batch[2].append((stream, value, is_end))
        work.ordinal += 1

    def _alone(self, gathered: dict[int, _Gathered], stream: OpenStream, value: Any, *, is_end: bool) -> None:
        """Behind what was gathered of the same caller, so that the order of each stream stays."""
        before = gathered.pop(stream.work.header.reply_to, None)
        if before is not None:
            self._go(before)
        if is_end:
            self.end(stream)
            return
        try:
            self.send(stream, value)
        except (MessageError, OutOfMemory) as error:
            self.fail(stream, error)

    def _join(self, stream: OpenStream) -> bool:
        """Whether items of a stream may travel in batches: they go to its caller alone, and a predecessor has sent none
        of them.
        """
        work = stream.work
        producer = self._outlets.lane_of_answers(work, _port(stream))
        if producer is None or (work.published is not None and work.ordinal < work.published.highest()):
            return False
        stream.producer, stream.credit = producer, self._outlets.callers.credit(producer, work.header)
        return True

    def _go(self, gathered: _Gathered) -> None:
        """Publishes a batch. Without room for it, its items wait in the outboxes of their inputs."""
        producer, batch, rows = gathered
        try:
            went = self._outlets.publish_batch(producer, batch, rows[0][0].work)
        except (OutOfMemory, CorruptLane):
            went = False  # a corrupt lane is found by the worker's own look at it
        if not went:
            self._keep(rows)
            return
        table = self._outlets.table
        for stream, value, is_end in rows:
            work = stream.work
            table.sent(work.row, work.ordinal)
            if work.reports:
                self._outlets.reports.ended(work) if is_end else self._outlets.reports.item(work, value)
            if is_end:
                self._outlets.callers.forget_stream(work.header.key)
                self._over(stream)

    def _keep(self, rows: list[tuple[OpenStream, Any, bool]]) -> None:
        """Takes back what was noted of these items, and sends each alone, so that it waits for room."""
        for stream, _, is_end in rows:
            stream.work.ordinal -= 1
            if not is_end and stream.credit is not None:
                stream.credit.sent -= 1
        for stream, value, is_end in rows:
            self._alone({}, stream, value, is_end=is_end)

    # -- room --------------------------------------------------------------------------------------------------------

    def room_of(self, stream: OpenStream) -> int:
        """For how many items its caller has room; 0 where the stream is over."""
        work = stream.work
        if work.state is not RUNNING or work.outbox:
            return 0
        if stream.credit is None and not self._join(stream):
            return STREAM_WINDOW  # along edges, or to where a predecessor has sent them
        return max(0, cast(StreamCredit, stream.credit).room(cast(Producer, stream.producer), work.header.request))

    async def wait_for_room(self, stream: OpenStream) -> None:
        """Until `room_of` is above 0, or the stream is over."""
        while self.has(stream) and not self.room_of(stream):
            waiter = self._runs.loop.create_future()
            self._waiting.setdefault(stream, []).append(waiter)
            self._runs.loop.stop()  # before it sleeps the worker must see who waits for what
            await waiter

    # -- what the worker's loop asks ---------------------------------------------------------------------------------

    def advance(self) -> bool:
        """Ends streams whose time is over, and lets items go that waited for room; True if there was any."""
        advanced = False
        while self._deadlines and self._is_due(self._deadlines[0]):
            work = heapq.heappop(self._deadlines)[2]
            if work in self._streams:
                self._expire(work)
                advanced = True
        for work in [work for work in self._held if self._outlets.flush(work)]:
            self._held.pop(work, None)
            advanced = True
        for stream in [each for each in self._waiting if self.room_of(each)]:
            for waiter in self._waiting.pop(stream):
                if not waiter.done():
                    waiter.set_result(None)
            advanced = True
        return advanced

    def _is_due(self, deadline: tuple[int, int, Work]) -> bool:
        return deadline[2] not in self._streams or now_ns() > deadline[0]

    def _expire(self, work: Work) -> None:
        stream = self._streams[work]
        work.outcome = EXPIRED
        self._stats.count("expired")
        self._outlets.abandon(work)
        self._outlets.fail(work, DeadlineExceeded("the stream did not end within the caller's time"))
        self._over(stream)

    def waits_for_room(self) -> bool:
        """Whether items of any stream wait, or somebody waits for room."""
        return bool(self._held or self._waiting)

    def can_progress(self) -> bool:
        """Whether `advance` would get anywhere now."""
        if any(map(self._outlets.could_go, self._held)) or any(map(self.room_of, self._waiting)):
            return True
        return bool(self._deadlines) and self._is_due(self._deadlines[0])

    def next_due_ns(self) -> int:
        """When the first stream is over, on CLOCK_MONOTONIC; 0 for never."""
        return self._deadlines[0][0] if self._deadlines else 0


def _port(stream: OpenStream) -> str:
    handler = stream.work.handler
    return handler.spec.port if handler is not None else ""
