"""Runs of handlers: of plain ones, which are done when they return, and of others, whose inputs outlive their call."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from ...shm.bell import now_ns
from ...shm.consumer import Consumer
from ..actor.handler import Handler
from ..errors import SlabwireError
from ..message.capacities import Key
from ..message.header import Flag
from ..telemetry.flight_recorder import CANCELLED, FAILED, Recorder
from .answers import ENDS_PROCESS, Answers
from .input_states import FINISHED, HANDED_ON, STOPPING, Event
from .outlets import Outlets
from .work import Work, current

_FIELDS = Flag.FIELDS


class PlainRuns:
    """For one actor instance. One thread."""

    def __init__(self, outlets: Outlets, answers: Answers, recorder: Recorder) -> None:
        self._outlets = outlets
        self._answers = answers
        self._stats = outlets.stats
        self._recorder = recorder

    def run(self, work: Work, handler: Handler) -> None:
        """Handles one input, in a context of its own, and sends the result. Raises what ends the process."""
        value, work.value = work.value, None
        stats = self._stats
        started = stats.words[stats.busy_since] = now_ns()  # `stats.begin`, without the price of a call
        current.set(work)
        try:
            result = handler.run(value, work.header.flags & _FIELDS)
            if result is not None:
                self._answers.give(work, handler, result)
            elif work.header.reply_to and handler.spec.replies:
                self._outlets.answer_none(work, handler.spec.port)
        except ENDS_PROCESS:
            self._recorder.record(stats.row, work, started, now_ns(), FAILED)
            raise
        except BaseException as error:
            self._answers.fail(work, error)
        finally:
            work.state = FINISHED
            ended = now_ns()
            stats.end(started, ended)
        self._recorder.record(stats.row, work, started, ended, work.outcome)

    def recover(self, lost: Work | None) -> None:
        """Notes the run of `lost`, in which a predecessor died (None: in no run). A run is recorded at its end, so only
        the successor can note this one.
        """
        began = self._stats.read()["busy_since_ns"]
        if lost is not None and began:
            died = Work(lost.header, lost.lane, lost.sequence, lost.attempt - 1)
            self._recorder.record(self._stats.row, died, began, 0, 0)


class HandlerRunner:
    """Runs the handlers of one kind (generators, coroutines, or batches) for one actor instance. One thread.

    A kind tells `runs` when a handler is done.
    """

    def __init__(self, runs: Runs, outlets: Outlets, answers: Answers) -> None:
        self._runs = runs
        self._outlets = outlets
        self._answers = answers
        self._stats = outlets.stats

    def start(self, work: Work, handler: Handler) -> None:
        """Begins the run of an input."""
        raise NotImplementedError

    def stop(self, work: Work) -> bool:
        """Ends a run; True if the run tells `runs` itself when it is over."""
        raise NotImplementedError

    def advance(self) -> bool:
        """Goes on with all runs that can; True if there was any."""
        return False

    def can_progress(self) -> bool:
        """Whether `advance` would get anywhere now."""
        return False

    def waits_for_room(self) -> bool:
        """Whether any run goes on only when there is room for what it has sent."""
        return False

    def next_due_ns(self) -> int:
        """When time alone will give something to do, on CLOCK_MONOTONIC; 0 for never."""
        return 0


class Runs:
    """An input keeps its row in the in-flight table until its handler is done and its outputs have left. `works` has
    these inputs by row, `held_up` those that go on when their outputs have left, with what is called then. One thread.
    """

    def __init__(self, outlets: Outlets, recorder: Recorder, loop: asyncio.AbstractEventLoop, concurrency: int) -> None:
        self.works: dict[int, Work] = {}
        self._by_request: dict[Key, dict[Work, None]] = {}  # of each request, in order
        self.held_up: deque[tuple[Work, Callable[[Work], None]]] = deque()
        self.kinds: set[HandlerRunner] = set()
        self._kind: dict[int, HandlerRunner] = {}
        self.loop = loop
        self._table = outlets.table
        self._outlets = outlets
        self._stats = outlets.stats
        self._recorder = recorder
        self._concurrency = concurrency

    def use(self, kind: dict[int, HandlerRunner]) -> None:
        """Says, by the number of an input port, what runs its handler. To be called once, before the first input."""
        self._kind, self.kinds = kind, set(kind.values())

    def has_place(self) -> bool:
        """Whether one more input may begin."""
        return len(self.works) < self._concurrency and self._table.can_keep()

    def serves(self, key: tuple[int, int]) -> bool:
        """Whether an input of that request is in flight."""
        return key in self._by_request

    def keep(self, work: Work, lane: Consumer) -> None:
        """Copies an input into a row, and gives its record back. Only if `has_place`."""
        work.row = self._table.keep(work.lane, work.sequence, work.attempt, lane.record(work.sequence))
        lane.commit()

    def start(self, work: Work, handler: Handler) -> None:
        """Begins an input that has its row."""
        work.advance(Event.BEGIN)
        self._add(work)
        self._stats.show("in_flight", len(self.works))
        work.started_ns = now_ns()
        self._recorder.record(self._stats.row, work, work.started_ns, 0, 0)
        work.recorded = self._recorder.number
        self._kind[work.header.target].start(work, handler)

    def end_unbegun(self, work: Work) -> None:
        """Sees an input out whose handler never began: its answer has been sent."""
        self._add(work)
        self.done(work)

    def _add(self, work: Work) -> None:
        self.works[work.row] = work
        self._by_request.setdefault(work.header.key, {})[work] = None

    def _remove(self, work: Work) -> None:
        if self.works.pop(work.row, None) is not None:
            beside = self._by_request[work.header.key]
            del beside[work]
            if not beside:
                del self._by_request[work.header.key]

    def done(self, work: Work) -> None:
        """The handler is done; the input is finished when its outputs have left."""
        if work.state is HANDED_ON:
            return
        self._record_end(work)
        if not work.outbox or work.state is STOPPING or self._outlets.flush(work):
            self.finish(work)
        else:
            work.advance(Event.HOLD)
            self.when_sent(work, self.finish)

    def finish(self, work: Work) -> None:
        """Frees the row. What has not left by now is wanted no more. Idempotent."""
        if work.advance(Event.FINISH):
            self._record_end(work)
            self._outlets.abandon(work)
            if work.reports:
                self._outlets.report_cancelled(work)
            self._table.clear(work.row)
            work.lease = None
            self._remove(work)
            self._stats.show("in_flight", len(self.works))

    def _record_end(self, work: Work) -> None:
        """The handler is done. An input that ran for so long that others needed its row gets another one."""
        number, work.recorded = work.recorded, 0
        if number and not self._recorder.end(number, now_ns(), work.outcome):
            self._recorder.record(self._stats.row, work, work.started_ns, now_ns(), work.outcome)

    # -- outputs that wait for room ----------------------------------------------------------------------------------

    def when_sent(self, work: Work, then: Callable[[Work], None]) -> None:
        """Calls `then` when all outputs of an input have left."""
        self.held_up.append((work, then))
        self.loop.stop()  # before it sleeps the worker must see who waits for what

    def flush(self) -> bool:
        """Lets outputs go that waited for room; True if any input got on by it."""
        progressed = False
        for _ in range(len(self.held_up)):
            work, then = self.held_up.popleft()
            if work.state is FINISHED or self._outlets.flush(work):
                progressed = True
                then(work)
            else:
                self.held_up.append((work, then))
        return progressed

    # -- what the worker's loop asks ---------------------------------------------------------------------------------

    def advance(self) -> bool:
        """One item of each generator that has room for it, and one batch that is due; True if there was anything."""
        advanced = [kind.advance() for kind in self.kinds]
        return any(advanced)

    def can_progress(self) -> bool:
        """Whether `advance` or `flush` would get anywhere now."""
        held_up = any(self._outlets.could_go(work) for work, _ in self.held_up)
        return held_up or (bool(self.works) and any(kind.can_progress() for kind in self.kinds))

    def waits_for_room(self) -> bool:
        """Whether a handler goes on only when its outputs have left; beside the inputs that are held up."""
        return any(kind.waits_for_room() for kind in self.kinds)

    def next_due_ns(self) -> int:
        """When time alone will give something to do, on CLOCK_MONOTONIC; 0 for never."""
        dues = [kind.next_due_ns() for kind in self.kinds] if self.works else []
        return min(filter(None, (*dues, *(work.due_ns() for work, _ in self.held_up))), default=0)

    # -- inputs that nobody wants ------------------------------------------------------------------------------------

    def cancel(self, key: Key) -> None:
        """Ends the inputs of one request without an answer."""
        for work in list(self._by_request.get(key, ())):
            if work.advance(Event.STOP):
                self._stats.count("cancelled")
                self._stop(work)

    def cancel_those(self, is_cancelled: Callable[[Work], bool]) -> None:
        """Ends inputs without an answer: nobody waits for what would come of them."""
        for work in list(self.works.values()):
            # In this order: to ask for a caller may bring the news that it is gone, which calls this function again.
            if is_cancelled(work) and work.advance(Event.STOP):
                self._stats.count("cancelled")
                self._stop(work)

    def cut_off(self, error: SlabwireError) -> None:
        """Ends all inputs with an error to their callers: their time is over."""
        for work in list(self.works.values()):
            self._outlets.abandon(work)
            self._outlets.fail(work, error)
            self._stop(work)

    def hand_on(self) -> None:
        """The process goes: a successor begins all inputs again."""
        for work in self.works.values():
            work.hand_on()
            self._kind[work.header.target].stop(work)

    def _stop(self, work: Work) -> None:
        work.outcome = work.outcome or CANCELLED
        work.advance(Event.STOP)
        if not self._kind[work.header.target].stop(work):
            self.finish(work)
