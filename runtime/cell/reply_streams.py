"""Runs of handlers that leave their answer to the actor's own loop, which makes items of many streams a step."""

from __future__ import annotations

import asyncio
import heapq
from collections import defaultdict
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
from ..message.item_batch import pack_item, packed_batch
from ..telemetry.flight_recorder import EXPIRED
from .answers import ENDS_PROCESS, Answers
from .input_states import RUNNING
from .open_stream import OpenStream
from .outlets import Outlets
from .reply_lanes import StreamCredit
from .runs import HandlerRunner, Runs
from .work import Work, current

# So many entries of streams that are over may lie among the deadlines of the others.
_LEAST_SWEPT = 64
# An item for one caller: its stream, its value, and that packed (empty: an end); what names the stream in a batch, the
# ordinal, and the row of the input in the in-flight table. All in one: no exception leaves anything half gathered.
_Row = tuple[OpenStream, Any, bytes, bytes, int, int]


class _Batch:
    """`is_plain`: none of the `rows` is an end, or of a stream of which others want to know."""

    __slots__ = ("is_plain", "rows")

    def __init__(self) -> None:
        self.rows: list[_Row] = []
        self.is_plain = True

    def add(self, stream: OpenStream, value: Any, packed: bytes) -> None:
        work = stream.work
        ordinal = work.ordinal
        if work.reports or not packed:
            self.is_plain = False
        self.rows.append((stream, value, packed, stream.head, ordinal, work.row))
        work.ordinal = ordinal + 1


_Gathered = defaultdict[int, _Batch]  # by caller


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
        if len(self._deadlines) > 2 * len(self._streams) + _LEAST_SWEPT:
            self._deadlines = [each for each in self._deadlines if each[2] in self._streams]
            heapq.heapify(self._deadlines)
        for waiter in self._waiting.pop(stream, ()):
            if not waiter.done():
                waiter.set_result(None)
        for callback in stream.take_callbacks():
            # Not from here: this may be in the middle of a step, and a callback may publish.
            self._runs.loop.call_soon(self._call, stream, callback)

    def _call(self, stream: OpenStream, callback: Callable[[ReplyStream[Any]], object]) -> None:
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
        gathered: _Gathered = defaultdict(_Batch)
        try:
            self._gather(gathered, items)
            for stream in ended:
                if _opened(stream).work.state is RUNNING:
                    self._gather_end(gathered, _opened(stream))
        finally:  # also what came before `items` raised
            for batch in gathered.values():
                self._go(batch)

    def _gather(self, gathered: _Gathered, items: Iterable[tuple[ReplyStream[Any], Any]]) -> None:
        for stream, value in items:
            if type(stream) is not OpenStream:
                stream = _opened(stream)
            work, credit = stream.work, stream.credit
            if work.state is not RUNNING:
                continue
            if credit is None or credit.sent >= credit.limit or work.outbox:
                packed = _packed(value) if self._may_join(stream) else None
            else:
                packed = _packed(value)
            if packed is None:
                self._alone(gathered, stream, value, is_end=False)
                continue
            cast(StreamCredit, stream.credit).sent += 1
            gathered[stream.caller].add(stream, value, packed)

    def _gather_end(self, gathered: _Gathered, stream: OpenStream) -> None:
        if stream.work.outbox or (stream.credit is None and not self._join(stream)):
            self._alone(gathered, stream, None, is_end=True)
        else:
            gathered[stream.caller].add(stream, None, b"")

    def _may_join(self, stream: OpenStream) -> bool:
        """Whether an item may travel in the next batch: nothing of its stream waits, and its caller has room for it."""
        if stream.work.outbox or (stream.credit is None and not self._join(stream)):
            return False
        producer, credit = cast(Producer, stream.producer), cast(StreamCredit, stream.credit)
        return credit.room(producer, stream.work.header.request) > 0

    def _alone(self, gathered: _Gathered, stream: OpenStream, value: Any, *, is_end: bool) -> None:
        """Behind what was gathered of the same caller, so that the order of each stream stays."""
        before = gathered.pop(stream.caller, None)
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
        # What a predecessor has sent, and its reader not read, is on its way.
        stream.credit.sent = max(stream.credit.sent, work.ordinal if work.attempt > 1 else 0)
        return True

    def _go(self, batch: _Batch) -> None:
        """Publishes a batch. Without room for it, its items wait in the outboxes of their inputs."""
        rows, first = batch.rows, batch.rows[0][0]
        data = packed_batch([each[3] for each in rows], [each[4] for each in rows], [each[2] for each in rows])
        try:
            went = self._outlets.publish_batch(cast(Producer, first.producer), data, len(rows), first.work)
        except (OutOfMemory, CorruptLane):
            went = False  # a corrupt lane is found by the worker's own look at it
        if not went:
            self._keep(rows)
            return
        self._outlets.table.sent_all([(row, ordinal + 1) for _, _, _, _, ordinal, row in rows])
        for stream, value, packed, *_ in () if batch.is_plain else rows:
            if stream.work.reports:
                self._outlets.reports.item(stream.work, value) if packed else self._outlets.reports.ended(stream.work)
            if not packed:
                self._outlets.callers.forget_stream(stream.work.header.key)
                self._over(stream)

    def _keep(self, rows: list[_Row]) -> None:
        """Takes back what was noted of these items, and sends each alone, so that it waits for room."""
        for stream, _, packed, *_ in rows:
            stream.work.ordinal -= 1
            if packed and stream.credit is not None:
                stream.credit.sent -= 1
        for stream, value, packed, *_ in rows:
            self._alone(defaultdict(_Batch), stream, value, is_end=not packed)

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
        for work in [work for work in list(self._held) if self._outlets.flush(work)]:
            self._held.pop(work, None)
            advanced = True
        for stream in [each for each in list(self._waiting) if self.room_of(each)]:
            for waiter in self._waiting.pop(stream, ()):
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


def _opened(stream: ReplyStream[Any]) -> OpenStream:
    """A stream as `reply_stream` has made it. Raises MessageError for anything else."""
    if not isinstance(stream, OpenStream):
        raise MessageError(f"publish takes pairs of a reply stream and an item, and ended streams, not {stream!r}")
    return stream


def _packed(value: Any) -> bytes | None:
    """An item for a batch; None for one that travels alone, or is refused when it does."""
    try:
        return pack_item(value)
    except MessageError:
        return None


def _port(stream: OpenStream) -> str:
    handler = stream.work.handler
    return handler.spec.port if handler is not None else ""
