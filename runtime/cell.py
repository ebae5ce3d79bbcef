"""One actor instance inside its worker: takes inputs from its lanes, runs its handlers, commits what is finished."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

from ..shm.bell import now_ns
from ..shm.inflight import RUNNING_ROW, Inflight
from ..shm.lane import RECORD_NBYTES, Consumer
from .actor import Actor
from .code import where
from .endpoint import Endpoint
from .errors import Cancelled, DeadLetter, DeadlineExceeded, Draining, HandlerError, Interrupted, SlabwireError
from .handler import Handler
from .message import Flag, Header, Kind, read_header
from .outlets import Outlets
from .spec import ActorSpec
from .stats import CellStats
from .work import Work, current

logger = logging.getLogger("slabwire")

# How many cancelled requests are remembered, for messages of theirs that are still on the road.
_REMEMBERED_CANCELS = 1024


class Cell:
    """Everything of one actor instance but the actor itself. One thread, that of the worker's loop.

    `ports` maps the number of an input port to its handler; `buried(header, reason)` is told of dead letters.
    """

    def __init__(
        self,
        instance: str,
        spec: ActorSpec,
        actor: Actor,
        ports: dict[int, Handler],
        table: Inflight,
        outlets: Outlets,
        endpoint: Endpoint,
        stats: CellStats,
        loop: asyncio.AbstractEventLoop,
        buried: Callable[[str, Work, str], None],
    ) -> None:
        self.instance = instance
        self.spec = spec
        self.actor = actor
        self.ports = ports
        self.table = table
        self.outlets = outlets
        self.endpoint = endpoint
        self.stats = stats
        self.inlets: list[Consumer] = []
        self.calls_from_clients: set[int] = set()
        self.draining = False
        self._loop = loop
        self._buried = buried
        self._blocked: tuple[Work, Consumer] | None = None
        self._works: dict[int, Work] = {}
        self._generators: deque[Work] = deque()
        self._leaving: deque[Work] = deque()
        self._batches: dict[int, list[Work]] = {}
        self._redelivered: deque[Work] = deque()
        self._cancelled: OrderedDict[tuple[int, int], None] = OrderedDict()
        self._turn = 0
        self.is_async = any(each.spec.kind in ("coroutine", "async_generator") for each in ports.values())

    # -- what the worker's loop asks ---------------------------------------------------------------------------------

    def is_ready(self) -> bool:
        """Whether `step` may find something to do."""
        return bool(
            self._blocked or self._generators or self._leaving or self._redelivered or self._batches or self.has_input()
        )

    def has_input(self) -> bool:
        return any(lane.available() for lane in self.inlets)

    def can_progress(self) -> bool:
        """Whether a step now would get anywhere: the last look before the worker sleeps."""
        if self._blocked is not None:
            return self.outlets.could_go(self._blocked[0])
        return (
            bool(self._redelivered)
            or any(not work.outbox or self.outlets.could_go(work) for work in self._generators)
            or any(self.outlets.could_go(work) for work in self._leaving)
            or any(lane.available() and not self._holds_up(lane) for lane in self.inlets)
        )

    def _holds_up(self, lane: Consumer) -> bool:
        """Whether the next record of a lane must wait for one of the inputs in flight."""
        header = read_header(lane.segment.bytes, lane.offset())
        if header.kind == Kind.END:
            return any(work.header.key == header.key for work in self._works.values())
        handler = self.ports.get(header.target)
        at_once = handler is None or (handler.spec.kind == "plain" and handler.spec.batch is None)
        return header.kind == Kind.DATA and not at_once and not self._has_place()

    def waits_for_room(self) -> bool:
        return bool(self._blocked or self._leaving or self.outlets.overflow or any(w.outbox for w in self._generators))

    def next_wake_ns(self) -> int:
        """When a batch that is gathering must run; 0 if none is."""
        return min((self._batch_due_ns(number) for number in self._batches), default=0)

    def step(self, until_ns: int) -> bool:
        """Does work for about as long as `until_ns` says, on CLOCK_MONOTONIC; True if it did any."""
        progressed = self._flush()
        while self._blocked is None:
            advanced = self._advance_generators() | self._run_due_batches()
            if not self._redeliver_next() and not self._take_next():
                return progressed | advanced
            progressed = True
            if now_ns() >= until_ns:
                break
        return progressed

    # -- inputs ------------------------------------------------------------------------------------------------------

    def _take_next(self) -> bool:
        """Handles one record of the next lane that has one; False if there is none, or no place for it."""
        for index in range(len(self.inlets)):
            turn = (self._turn + index) % len(self.inlets)
            lane = self.inlets[turn]
            if lane.available() and self._take(lane):
                self._turn = turn + 1
                return True
        return False

    def _take(self, lane: Consumer) -> bool:
        offset = lane.offset()
        header = read_header(lane.segment.bytes, offset)
        if header.kind == Kind.CANCEL:
            self.endpoint.lease(lane, header, lane.cursor)
            lane.commit()
            self._cancel(header)
            return True
        if header.kind == Kind.END:
            return self._take_end(lane, header)
        if header.kind != Kind.DATA or header.target not in self.ports:
            logger.error("%s: a record of kind %s for port %s was dropped", self.instance, header.kind, header.target)
            self.endpoint.lease(lane, header, lane.cursor)
            lane.commit()
            return True
        work = Work(header, lane.lane, lane.cursor, 1, handler=self.ports[header.target])
        return self._begin(work, lane, lane.segment.bytes[offset : offset + RECORD_NBYTES])

    def _begin(self, work: Work, lane: Consumer, record: memoryview) -> bool:
        refusal = self._refusal(work)
        if refusal is None and not self._runs_at_once(work) and not self._has_place():
            return False
        try:
            work.value = self.endpoint.open(lane, work.header, record, work.sequence)
        except SlabwireError as error:
            refusal = refusal or error
        if refusal is not None:
            work.value = None
            self._refuse(work, refusal)
            self._commit(work, lane)
        elif self._runs_at_once(work):
            self.table.begin_running(work.lane, work.sequence, work.attempt)
            self._run_plain(work)
            self._commit(work, lane)
        else:
            work.row = self.table.keep(work.lane, work.sequence, work.attempt, record)
            lane.commit()
            self._start(work)
        return True

    def _runs_at_once(self, work: Work) -> bool:
        handler = work.handler
        return handler is not None and handler.spec.kind == "plain" and handler.spec.batch is None

    def _has_place(self) -> bool:
        return len(self._works) < self.spec.concurrency and self.table.can_keep()

    def _refusal(self, work: Work) -> SlabwireError | None:
        """Why this input is not handled."""
        header = work.header
        if header.key in self._cancelled and header.reply_to:
            return Cancelled("its caller cancelled it")
        if header.deadline_ns and now_ns() > header.deadline_ns:
            self.stats.count("expired")
            return DeadlineExceeded(f"the deadline passed while it waited for {self.instance}")
        if self.draining and work.lane in self.calls_from_clients:
            return Draining("the graph is stopping and takes no new work")
        if work.attempt > self.spec.max_attempts:
            return DeadLetter(f"{self.instance} died {work.attempt - 1} times while handling it; it is not tried again")
        return None

    def _refuse(self, work: Work, error: SlabwireError) -> None:
        if isinstance(error, DeadLetter):
            self.stats.count("dead")
            self._buried(self.instance, work, str(error))
        if not isinstance(error, Cancelled):
            self.outlets.fail(work, error)

    def _commit(self, work: Work, lane: Consumer) -> None:
        """Gives the record back once all outputs have left; until then the actor takes nothing new."""
        if work.outbox and not self.outlets.flush(work):
            self._blocked = (work, lane)
            return
        lane.commit()

    def _take_end(self, lane: Consumer, header: Header) -> bool:
        """The end of a stream goes on when all items before it have been handled."""
        if any(work.header.key == header.key for work in self._works.values()):
            return False
        work = Work(header, lane.lane, lane.cursor, 1, handler=self.ports.get(header.target))
        if work.handler is not None:
            outputs = [each.port for each in self.spec.outputs]
            replies = work.handler.spec.replies
            self.outlets.end_stream(work, self.outlets.end_ports(work.handler.spec.port, outputs, replies))
        self._commit(work, lane)
        return True

    # -- handlers ----------------------------------------------------------------------------------------------------

    def _run_plain(self, work: Work) -> None:
        handler, value = work.handler, work.value
        if handler is None:
            return
        work.value = None
        started = now_ns()
        self.stats.begin(started)
        token = current.set(work)
        try:
            result = handler.function(**handler.bind(value, bool(work.header.flags & Flag.FIELDS)))
            self._answer(work, handler, result)
        except Exception as error:
            self._failed(work, error)
        finally:
            current.reset(token)
            self.stats.end(started, now_ns())

    def _answer(self, work: Work, handler: Handler, result: Any) -> None:
        if not handler.spec.replies:
            return
        if result is None:
            self.outlets.answer_none(work)
        else:
            self.outlets.send(work, handler.spec.port, result)

    def _failed(self, work: Work, error: BaseException) -> None:
        self.stats.count("failed")
        if isinstance(error, SlabwireError):
            reported: SlabwireError = error
        else:
            place = where(error)
            reported = HandlerError(f"{self.instance}: {type(error).__name__}: {error}{f' ({place})' if place else ''}")
            logger.error("%s: a handler raised", self.instance, exc_info=error)
        # What the frames of a traceback hold would keep leases alive.
        error.__traceback__ = None
        self.outlets.fail(work, reported)

    def _start(self, work: Work) -> None:
        """Begins an input that outlives its call."""
        handler = work.handler
        if handler is None:
            return
        self._works[work.row] = work
        self.stats.show("in_flight", len(self._works))
        work.started_ns = now_ns()
        if handler.spec.batch is not None:
            self._batches.setdefault(work.header.target, []).append(work)
        elif handler.spec.kind == "generator":
            self._start_generator(work, handler)
        else:
            run = self._run_coroutine if handler.spec.kind == "coroutine" else self._run_async_generator
            token = current.set(work)
            work.task = self._loop.create_task(run(work, handler))
            current.reset(token)

    def _arguments(self, work: Work, handler: Handler) -> dict[str, Any]:
        arguments = handler.bind(work.value, bool(work.header.flags & Flag.FIELDS))
        work.value = None
        if handler.spec.resumable:
            arguments["sent"] = work.ordinal
        return arguments

    def _start_generator(self, work: Work, handler: Handler) -> None:
        try:
            work.items = handler.function(**self._arguments(work, handler))
        except Exception as error:
            self._failed(work, error)
            self._leave(work)
        else:
            self._generators.append(work)

    def _advance_generators(self) -> bool:
        """One item of each generator that has room for it."""
        advanced = False
        for _ in range(len(self._generators)):
            work = self._generators.popleft()
            if work.finished:
                continue
            if (not work.outbox or self.outlets.flush(work)) and self._next_item(work):
                advanced = True
            if not work.finished and work not in self._leaving:
                self._generators.append(work)
        return advanced

    def _next_item(self, work: Work) -> bool:
        handler = work.handler
        if handler is None:
            return False
        started = now_ns()
        self.stats.begin(started)
        token = current.set(work)
        try:
            self.outlets.send(work, handler.spec.port, next(work.items), item=True)  # type: ignore[arg-type]
        except StopIteration:
            self.outlets.end_stream(work, [handler.spec.port])
            self._leave(work)
        except Exception as error:
            self._failed(work, error)
            self._leave(work)
        finally:
            current.reset(token)
            self.stats.end(started, now_ns())
        return True

    async def _run_coroutine(self, work: Work, handler: Handler) -> None:
        started = now_ns()
        try:
            self._answer(work, handler, await handler.function(**self._arguments(work, handler)))
        except asyncio.CancelledError:
            work.cancelled = True
        except Exception as error:
            self._failed(work, error)
        self.stats.end(started, now_ns(), waited=True)
        self._leave(work)

    async def _run_async_generator(self, work: Work, handler: Handler) -> None:
        started = now_ns()
        try:
            async with contextlib.aclosing(handler.function(**self._arguments(work, handler))) as items:
                async for item in items:
                    self.outlets.send(work, handler.spec.port, item, item=True)
                    if work.outbox:
                        await self._room(work)
            self.outlets.end_stream(work, [handler.spec.port])
        except asyncio.CancelledError:
            work.cancelled = True
        except Exception as error:
            self._failed(work, error)
        self.stats.end(started, now_ns(), waited=True)
        self._leave(work)

    async def _room(self, work: Work) -> None:
        """Pauses a stream until what it has sent is on its way."""
        work.room = self._loop.create_future()
        self._leaving.append(work)
        self._loop.stop()
        await work.room

    # -- batches -----------------------------------------------------------------------------------------------------

    def _batch_due_ns(self, number: int) -> int:
        works, batch = self._batches[number], self.ports[number].spec.batch
        return works[0].started_ns + int((batch.max_wait_s if batch else 0) * 1e9)

    def _run_due_batches(self) -> bool:
        ran = False
        for number in list(self._batches):
            batch = self.ports[number].spec.batch
            if batch and (len(self._batches[number]) >= batch.max_size or now_ns() >= self._batch_due_ns(number)):
                self._run_batch(self._batches.pop(number), self.ports[number], batch.max_size)
                ran = True
        return ran

    def _run_batch(self, works: list[Work], handler: Handler, max_size: int) -> None:
        if len(works) > max_size:
            self._batches[works[0].header.target] = works[max_size:]
            works = works[:max_size]
        bound = [(work, item) for work in works if (item := self._bound_item(work, handler)) is not None]
        started = now_ns()
        self.stats.begin(started)
        token = current.set(bound[0][0] if bound else None)
        try:
            self._answer_batch(handler, [work for work, _ in bound], [item[0] for _, item in bound])
        finally:
            current.reset(token)
            self.stats.end(started, now_ns())
        for work in works:
            self._leave(work)

    def _bound_item(self, work: Work, handler: Handler) -> tuple[Any] | None:
        """The item that a message of a batch carries, in a tuple; None, and an error to its caller, if it is bad."""
        try:
            return (self._arguments(work, handler)[str(handler.field)],)
        except SlabwireError as error:
            self._failed(work, error)
            return None

    def _answer_batch(self, handler: Handler, works: list[Work], items: list[Any]) -> None:
        try:
            results = list(handler.function(**{str(handler.field): items})) if works else []
            if len(results) != len(works):
                raise HandlerError(f"{self.instance}.{handler.spec.port} answered {len(results)} of {len(works)} inputs")
        except Exception as error:
            for work in works:
                self._failed(work, error)
            return
        for work, result in zip(works, results, strict=True):
            try:
                self._answer(work, handler, result)
            except SlabwireError as error:
                self._failed(work, error)

    # -- ends --------------------------------------------------------------------------------------------------------

    def _leave(self, work: Work) -> None:
        """The handler is done; the input is finished when its outputs have left."""
        work.items = work.task = None
        if work.outbox and not work.cancelled and not self.outlets.flush(work):
            self._leaving.append(work)
            self._loop.stop()
        else:
            self._finish(work)

    def _finish(self, work: Work) -> None:
        if not work.finished:
            work.finished = True
            work.outbox.clear()
            self.table.clear(work.row)
            self._works.pop(work.row, None)
            self.stats.show("in_flight", len(self._works))

    def _flush(self) -> bool:
        """Lets outputs go that waited for room; True if any input got on by it."""
        progressed = False
        if self.outlets.overflow:
            self.outlets.flush_overflow()
        if self._blocked is not None:
            work, lane = self._blocked
            if self.outlets.flush(work):
                self._blocked = None
                lane.commit()
                progressed = True
        for _ in range(len(self._leaving)):
            work = self._leaving.popleft()
            if not work.finished and not self.outlets.flush(work):
                self._leaving.append(work)
                continue
            progressed = True
            if work.room is not None:
                room, work.room = work.room, None
                if not room.done():
                    room.set_result(None)
            else:
                self._finish(work)
        return progressed

    def _cancel(self, header: Header) -> None:
        self.stats.count("cancelled")
        self._cancelled[header.key] = None
        if len(self._cancelled) > _REMEMBERED_CANCELS:
            self._cancelled.popitem(last=False)
        self.outlets.forward_cancel(header)
        for work in [each for each in self._works.values() if each.header.key == header.key]:
            self._stop(work)

    def _stop(self, work: Work) -> None:
        work.cancelled = True
        if work.task is not None:
            work.task.cancel()
            return
        if work.items is not None:
            with contextlib.suppress(Exception):
                work.items.close()  # type: ignore[union-attr]
        for works in self._batches.values():
            if work in works:
                works.remove(work)
        self._batches = {number: works for number, works in self._batches.items() if works}
        self._finish(work)

    def forget_caller(self, endpoint: int, lanes: list[int]) -> None:
        """A client is gone: its lanes, and its work in flight."""
        self.inlets = [lane for lane in self.inlets if lane.lane not in lanes]
        self.outlets.replies.pop(endpoint, None)
        self.calls_from_clients -= set(lanes)
        for work in [each for each in self._works.values() if each.header.reply_to == endpoint]:
            self._stop(work)

    # -- recovery ----------------------------------------------------------------------------------------------------

    def recover(self, lanes: dict[int, Consumer]) -> None:
        """Takes up what a predecessor was handling. To be called once, before the first step."""
        self.stats.reset_gauges()
        works: dict[tuple[int, int], Work] = {}
        for left in self.table.live():
            lane = lanes.get(left.lane)
            if left.row == RUNNING_ROW:
                if lane is not None and lane.tail == left.sequence and lane.available():
                    works[left.lane, left.sequence] = self._interrupted_plain(lane, left.attempt + 1)
            elif lane is None or read_header(self.table.record(left.row), 0).target not in self.ports:
                self.table.clear(left.row)
            else:
                if lane.tail == left.sequence and lane.available():
                    lane.commit()  # it died after the copy and before giving the record back
                header = read_header(self.table.record(left.row), 0)
                work = Work(header, left.lane, left.sequence, left.attempt + 1, row=left.row, handler=self.ports[header.target])
                work.floor = left.ordinal
                works[left.lane, left.sequence] = work
        for edge, producer in self.outlets.lanes():
            for sequence in range(max(0, producer.head - producer.capacity), producer.head):
                sent = read_header(producer.record(sequence), 0)
                work_sent = works.get((sent.cause_lane, sent.cause_sequence))
                if work_sent is not None:
                    work_sent.sent[edge] = max(work_sent.sent.get(edge, work_sent.floor), sent.ordinal + 1)
        self._redelivered.extend(works.values())

    def _interrupted_plain(self, lane: Consumer, attempt: int) -> Work:
        header = read_header(lane.segment.bytes, lane.offset())
        return Work(header, lane.lane, lane.cursor, attempt, handler=self.ports.get(header.target))

    def _redeliver_next(self) -> bool:
        """Handles again what a predecessor had begun."""
        if not self._redelivered:
            return False
        work = self._redelivered.popleft()
        lane = next((each for each in self.inlets if each.lane == work.lane), None)
        if lane is None:
            if work.row:
                self.table.clear(work.row)
            return True
        self.stats.count("redelivered")
        if work.row == RUNNING_ROW:
            offset = lane.offset()
            return self._begin(work, lane, lane.segment.bytes[offset : offset + RECORD_NBYTES])
        return self._begin_again(work, lane)

    def _begin_again(self, work: Work, lane: Consumer) -> bool:
        self.table.restart(work.row, work.attempt)
        refusal = self._refusal(work)
        handler = work.handler
        if handler is not None and handler.spec.streams and (work.floor or work.sent):
            if handler.spec.resumable:
                ways = self.outlets.ways(handler.spec.port, work.header)
                work.ordinal = min((work.sent.get(way, work.floor) for way in ways), default=work.floor)
            else:
                refusal = refusal or Interrupted(f"{self.instance} died in the middle of this stream")
                work.ordinal = max(work.floor, *work.sent.values())
        try:
            work.value = self.endpoint.open(lane, work.header, self.table.record(work.row), work.sequence)
        except SlabwireError as error:
            refusal = refusal or error
        if refusal is None:
            self._start(work)
        else:
            work.value = None
            self._works[work.row] = work
            self._refuse(work, refusal)
            self._leave(work)
        return True
