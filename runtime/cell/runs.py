"""The inputs of one actor that outlive their call: generators, coroutines, batches, and outputs that wait for room."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from contextvars import copy_context
from typing import Any

from ...shm.bell import now_ns
from ...shm.inflight import Inflight
from ..actor.handler import Handler
from ..error_text import is_of
from ..errors import DeadlineExceeded, HandlerError, SlabwireError
from ..message.header import Flag
from ..telemetry.flight_recorder import CANCELLED, EXPIRED, Recorder
from ..telemetry.stats import CellStats
from .answers import ENDS_PROCESS, Answers
from .batcher import Batcher
from .outlets import Outlets
from .work import Work, current

_NO_MORE = object()


class Runs:
    """Each input here has a row in the in-flight table until its handler is done and its outputs have left."""

    def __init__(
        self,
        ports: dict[int, Handler],
        table: Inflight,
        outlets: Outlets,
        answers: Answers,
        stats: CellStats,
        recorder: Recorder,
        loop: asyncio.AbstractEventLoop,
        concurrency: int,
    ) -> None:
        self._table = table
        self._outlets = outlets
        self._answers = answers
        self._stats = stats
        self._recorder = recorder
        self._loop = loop
        self._concurrency = concurrency
        self._works: dict[int, Work] = {}
        self._generators: deque[Work] = deque()
        self._leaving: deque[Work] = deque()
        self._batcher = Batcher({number: each.spec.batch for number, each in ports.items() if each.spec.batch})

    @property
    def are_any(self) -> bool:
        return bool(self._works or self._generators or self._leaving)

    def has_place(self) -> bool:
        """Whether one more input may begin."""
        return len(self._works) < self._concurrency and self._table.can_keep()

    def serve(self, key: tuple[int, int]) -> bool:
        """Whether an input of that request is in flight."""
        return any(work.header.key == key for work in self._works.values())

    def waits_for_room(self) -> bool:
        return bool(self._leaving) or any(work.outbox for work in self._generators)

    def stats(self) -> dict[str, int]:
        """What is in flight, and how many of its messages wait to leave."""
        outbox = sum(len(work.outbox) for work in self._works.values())
        streams = {"generators": len(self._generators), "leaving": len(self._leaving)}
        return {"in_flight": len(self._works), **streams, "outbox": outbox}

    def can_progress(self) -> bool:
        """Whether `advance` or `flush` would get anywhere now."""
        return any(not work.outbox or self._outlets.could_go(work) for work in self._generators) or any(
            self._outlets.could_go(work) for work in self._leaving
        )

    def next_due_ns(self) -> int:
        """When time alone will give something to do, on CLOCK_MONOTONIC; 0 for never."""
        expiries = [work.header.deadline_ns for work in self._generators if work.outbox]
        dues = [work.due_ns() for work in self._leaving]
        return min(filter(None, (*expiries, *dues, self._batcher.next_due_ns())), default=0)

    def start(self, work: Work, handler: Handler) -> None:
        """Begins an input that has its row."""
        self._works[work.row] = work
        self._stats.show("in_flight", len(self._works))
        work.started_ns = now_ns()
        self._recorder.record(self._stats.row, work, work.started_ns, 0, 0)
        work.recorded = self._recorder.number
        if handler.spec.batch is not None:
            self._batcher.add(work)
        elif handler.spec.kind == "generator":
            self._start_generator(work, handler)
        else:
            run = self._run_coroutine if handler.spec.kind == "coroutine" else self._run_async_generator
            token = current.set(work)
            # Not by the loop, whose way is that of tasks which actors begin for themselves.
            work.task = asyncio.Task(run(work, handler), loop=self._loop)
            work.task.add_done_callback(lambda task: self._ended(work, task))
            current.reset(token)

    def end(self, work: Work) -> None:
        """Sees an input out that never began: its answer has been sent."""
        self._works[work.row] = work
        self._leave(work)

    def _arguments(self, work: Work, handler: Handler) -> dict[str, Any]:
        arguments = handler.bind(work.value, bool(work.header.flags & Flag.FIELDS))
        work.value = None
        if handler.spec.resumable:
            arguments["sent"] = work.ordinal
        return arguments

    # -- generators --------------------------------------------------------------------------------------------------

    def _start_generator(self, work: Work, handler: Handler) -> None:
        work.context = copy_context()
        work.context.run(current.set, work)
        try:
            work.items = handler.function(**self._arguments(work, handler))
        except ENDS_PROCESS:
            raise
        except BaseException as error:
            self._answers.fail(work, error)
            self._leave(work)
        else:
            self._generators.append(work)

    def advance(self) -> bool:
        """One item of each generator that has room for it, and one batch that is due; True if there was anything."""
        advanced = False
        for _ in range(len(self._generators)):
            work = self._generators.popleft()
            if work.finished:
                continue
            if work.header.deadline_ns and now_ns() > work.header.deadline_ns:
                self._expire(work)
                advanced = True
                continue
            if not work.outbox or self._outlets.flush(work):
                advanced = True
                if not self._next_item(work):
                    continue
            self._generators.append(work)
        if self._batcher:
            due = self._batcher.take_due(now_ns())
            if due:
                self._run_batch(due)
            advanced |= bool(due)
        return advanced

    def _expire(self, work: Work) -> None:
        """The caller's time is over in the middle of a stream."""
        work.outcome = EXPIRED
        self._stats.count("expired")
        self._outlets.abandon(work)
        self._close(work)
        self._outlets.fail(work, DeadlineExceeded("the stream did not end within the caller's time"))
        self._leave(work)

    def _next_item(self, work: Work) -> bool:
        """Sends one item; False if there are no more."""
        handler = work.handler
        if handler is None:
            return False
        started = now_ns()
        self._stats.begin(started)
        try:
            item = work.context.run(next, work.items, _NO_MORE)  # type: ignore[arg-type]
            if item is _NO_MORE:
                self._end_stream(work, handler)
            else:
                self._outlets.send(work, handler.spec.port, item, item=True)
                return True
        except ENDS_PROCESS:
            raise
        except BaseException as error:
            self._answers.fail(work, error)
            self._close_items(work)
        finally:
            self._stats.end(started, now_ns())
        self._leave(work)
        return False

    def _close_items(self, work: Work) -> None:
        """Ends a generator that is not at its end. What its `finally` raises answers nobody."""
        try:
            work.context.run(work.items.close)  # type: ignore[union-attr]
        except ENDS_PROCESS:
            raise
        except BaseException as error:
            self._answers.note(error, "a generator raised when it was closed")

    def _end_stream(self, work: Work, handler: Handler) -> None:
        """A stream that answers one item of another does not end the whole: that end comes along the edge."""
        if not work.header.flags & Flag.ITEM:
            self._outlets.end_stream(work, [handler.spec.port])

    # -- coroutines --------------------------------------------------------------------------------------------------

    async def _run_coroutine(self, work: Work, handler: Handler) -> None:
        try:
            result = await handler.function(**self._arguments(work, handler))
            if not work.left:
                self._answers.give(work, handler, result)
        except (Exception, asyncio.CancelledError) as error:
            self._fail_task(work, error)
        self._end_task(work)

    async def _run_async_generator(self, work: Work, handler: Handler) -> None:
        try:
            async with contextlib.aclosing(handler.function(**self._arguments(work, handler))) as items:
                async for item in items:
                    self._outlets.send(work, handler.spec.port, item, item=True)
                    if work.outbox:
                        await self._room(work)
            if not work.left:
                self._end_stream(work, handler)
        except (Exception, asyncio.CancelledError) as error:
            self._fail_task(work, error)
        self._end_task(work)

    def _fail_task(self, work: Work, error: BaseException) -> None:
        if not work.left and not (work.cancelled and is_of(error, asyncio.CancelledError)):
            self._answers.fail(work, error)

    def _end_task(self, work: Work) -> None:
        self._stats.end(work.started_ns, now_ns(), waited=True)
        self._leave(work)

    def _ended(self, work: Work, task: asyncio.Task[None]) -> None:
        """Sees off a task that did not come to its own end: one that was cancelled before its first step, and one whose
        handler raised what is no Exception. (Inside the task a GeneratorExit may also mean that it is thrown away.)
        """
        if task.cancelled():
            self._finish(work)
        elif (error := task.exception()) is not None and not work.left:
            self._answers.fail(work, error)
            self._end_task(work)

    async def _room(self, work: Work) -> None:
        """Pauses a stream until what it has sent is on its way."""
        work.room = self._loop.create_future()
        self._leaving.append(work)
        self._loop.stop()
        await work.room

    # -- batches -----------------------------------------------------------------------------------------------------

    def _run_batch(self, works: list[Work]) -> None:
        handler = works[0].handler
        if handler is None:
            return
        bound = [(work, item) for work in works if (item := self._item_of(work, handler)) is not None]
        started = now_ns()
        self._stats.begin(started)
        token = current.set(works[0])
        try:
            self._answer_batch(handler, [work for work, _ in bound], [item[0] for _, item in bound])
        finally:
            current.reset(token)
            self._stats.end(started, now_ns())
        for work in works:
            self._leave(work)

    def _item_of(self, work: Work, handler: Handler) -> tuple[Any] | None:
        """What a message brings to its batch, in a tuple; None, with an error to its caller, if it does not fit."""
        try:
            return (self._arguments(work, handler)[str(handler.field)],)
        except ENDS_PROCESS:
            raise
        except BaseException as error:
            self._answers.fail(work, error)
            return None

    def _answer_batch(self, handler: Handler, works: list[Work], items: list[Any]) -> None:
        try:
            results = list(copy_context().run(handler.function, **{str(handler.field): items})) if works else []
            if len(results) != len(works):
                raise HandlerError(
                    f"{handler.owner}.{handler.spec.port} answered {len(results)} of {len(works)} inputs"
                )
        except ENDS_PROCESS:
            raise
        except BaseException as error:
            for work in works:
                self._answers.fail(work, error)
            return
        for work, result in zip(works, results, strict=True):
            try:
                self._answers.give(work, handler, result)
            except ENDS_PROCESS:
                raise
            except BaseException as error:
                self._answers.fail(work, error)

    # -- ends --------------------------------------------------------------------------------------------------------

    def _leave(self, work: Work) -> None:
        """The handler is done; the input is finished when its outputs have left."""
        if work.left:
            return
        work.items = work.task = None
        self._record_end(work)
        if work.outbox and not work.cancelled and not self._outlets.flush(work):
            self._leaving.append(work)
            self._loop.stop()
        else:
            self._finish(work)

    def _finish(self, work: Work) -> None:
        if not (work.finished or work.left):
            work.finished = True
            self._record_end(work)
            self._outlets.abandon(work)
            self._table.clear(work.row)
            work.lease = None
            self._works.pop(work.row, None)
            self._stats.show("in_flight", len(self._works))

    def _record_end(self, work: Work) -> None:
        """The handler is done with it. What ran for so long that its row was needed gets another, at its end."""
        number, work.recorded = work.recorded, 0
        outcome = work.outcome or (CANCELLED if work.cancelled else 0)
        if number and not self._recorder.end(number, now_ns(), outcome):
            self._recorder.record(self._stats.row, work, work.started_ns, now_ns(), outcome)

    def flush(self) -> bool:
        """Lets outputs go that waited for room; True if any input got on by it."""
        progressed = False
        for _ in range(len(self._leaving)):
            work = self._leaving.popleft()
            if not work.finished and not self._outlets.flush(work):
                self._leaving.append(work)
                continue
            progressed = True
            if work.room is None:
                self._finish(work)
            elif not work.room.done():
                work.room.set_result(None)
                work.room = None
        return progressed

    def cancel_those(self, is_cancelled: Callable[[Work], bool]) -> None:
        """Ends inputs without an answer: nobody waits for what would come of them."""
        for work in [each for each in self._works.values() if not each.cancelled and is_cancelled(each)]:
            self._stats.count("cancelled")
            self._stop(work)

    def cut_off(self, error: SlabwireError) -> None:
        """Ends all inputs with an error to their callers: their time is over."""
        for work in list(self._works.values()):
            self._outlets.abandon(work)
            self._outlets.fail(work, error)
            self._stop(work)

    def leave(self) -> None:
        """The process goes: generators are closed, and a successor begins all inputs again. Tasks are the loop's."""
        for work in self._works.values():
            work.leave()
            self._close(work)

    def _stop(self, work: Work) -> None:
        work.cancelled = True
        if work.task is not None:
            work.task.cancel()
            return
        self._close(work)
        self._batcher.remove(work)
        self._finish(work)

    def _close(self, work: Work) -> None:
        if work.items is not None:
            self._close_items(work)
