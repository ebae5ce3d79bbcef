"""One actor instance inside its worker: takes inputs from its lanes, runs its handlers, commits what is finished."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable

from ...shm.bell import now_ns
from ...shm.consumer import Consumer
from ...shm.inflight import RUNNING_ROW, Inflight
from ..actor.actor import Actor
from ..actor.handler import Handler
from ..dataplane.endpoint import Endpoint
from ..errors import Cancelled, DeadLetter, DeadlineExceeded, Draining, SlabwireError, cut_off_error
from ..message.capacities import EVERY_REQUEST, Key
from ..message.encoding import decode
from ..message.header import Flag, Header, Kind
from ..message.keyed import KEYED, take_key
from ..spec import ActorSpec
from ..telemetry.flight_recorder import Recorder, outcome_of
from ..telemetry.stats import CellStats
from .answers import Answers
from .cancels import Cancels
from .inlets import Inlets
from .outlets import Outlets
from .plain_runs import PlainRuns
from .quarantine import Quarantine
from .redelivery import given_up, resumed, unfinished_works
from .runs import Runs
from .work import Work

logger = logging.getLogger("slabwire")

# Members of an enumeration are looked up by attribute, at every message.
_DATA, _FIELDS, _BLOCK = int(Kind.DATA), Flag.FIELDS, Flag.BLOCK


class Cell:
    """Everything of one actor instance but the actor itself. One thread, that of the worker's loop.

    `ports` maps the number of an input port to its handler; `buried(instance, work, reason)` is told of dead letters.
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
        recorder: Recorder,
        loop: asyncio.AbstractEventLoop,
        buried: Callable[[str, Work, str], None],
    ) -> None:
        self.instance = instance
        self.spec = spec
        self.actor = actor
        self.outlets = outlets
        self.inlets = Inlets(outlets.routes)
        self.draining = self._is_cut = False
        self.is_async = any(each.spec.kind in ("coroutine", "async_generator") for each in ports.values())
        self._ports = ports
        self._table = table
        self._endpoint = endpoint
        self._stats = stats
        self._recorder = recorder
        self._buried = buried
        self.answers = Answers(instance, outlets, stats)
        self._plain = PlainRuns(outlets, self.answers, stats, recorder)
        self._runs = Runs(ports, table, outlets, self.answers, stats, recorder, loop, spec.concurrency)
        self._blocked: tuple[Work, Consumer] | None = None
        self._redelivered: deque[Work] = deque()
        self._cancels = Cancels()
        self._quarantine = Quarantine()

    def handler(self, port: int) -> Handler | None:
        """The handler behind the number of an input port, if it is this actor's."""
        return self._ports.get(port)

    # -- what the worker's loop asks ---------------------------------------------------------------------------------

    def is_ready(self) -> bool:
        """Whether `step` may find something to do."""
        return bool(
            self._blocked
            or self._runs.are_any
            or self._redelivered
            or self.outlets.holds_any
            or self.inlets.has_input()
        )

    def next_deadline_ns(self) -> int:
        """The earliest deadline among the records that are next in their lanes; 0 if none has one."""
        return min((each.deadline_ns for each in self.inlets.next_headers() if each.deadline_ns), default=0)

    def can_progress(self) -> bool:
        """Whether a step now would get anywhere: the last look before the worker sleeps."""
        if self.outlets.can_shed() or self._cancels.may_lie_in(self.inlets):
            return True
        if self._blocked is not None:
            return self.outlets.could_go(self._blocked[0])
        if self._runs.can_progress():
            return True
        if self._quarantine.holds():
            return False
        if self._redelivered:
            return self._can_redeliver()
        return any(lane.available() and not self._holds_up(lane) for lane in self.inlets)

    def heed_cancels(self) -> bool:
        """Ends what callers have lost interest in, though their word lies behind inputs that must wait."""
        for header in (found := list(self._cancels.found_in(self.inlets))):
            self._cancel(header)
        return bool(found)

    def _holds_up(self, lane: Consumer) -> bool:
        """Whether the next record of a lane must wait for one of the inputs in flight."""
        header = self.inlets.header(lane, lane.cursor)
        if header.kind == Kind.END:
            return self._runs.serve(header.key)
        return (
            header.kind == Kind.DATA
            and (handler := self._ports.get(header.target)) is not None
            and not handler.is_at_once
            and not self._runs.has_place()
        )

    def waits_for_room(self) -> bool:
        return bool(self._blocked or self.outlets.holds_any or self._runs.waits_for_room())

    def stats(self) -> dict[str, int]:
        """What is in flight, and how many messages wait to leave."""
        runs, outlets = self._runs.stats(), self.outlets.stats()
        blocked = len(self._blocked[0].outbox) if self._blocked is not None else 0
        waiting = blocked + runs["outbox"] + sum(outlets[each] for each in ("own_account", "overflow", "cancels"))
        return {**outlets, **runs, "outbox": waiting}

    def show_outbox(self) -> None:
        """Tells the supervisor what finds no room: who sleeps because of that does not hang."""
        self._stats.show("outbox", max(1, self.stats()["outbox"]) if self.waits_for_room() else 0)

    def next_wake_ns(self) -> int:
        """When time alone will give something to do, on CLOCK_MONOTONIC; 0 for never."""
        blocked = self._blocked[0].due_ns() if self._blocked else 0
        return min(filter(None, (blocked, self._quarantine.until_ns(), self._runs.next_due_ns())), default=0)

    def step(self, until_ns: int) -> bool:
        """Does work for about as long as `until_ns` says, on CLOCK_MONOTONIC; True if it did any."""
        progressed = self._flush()
        while self._blocked is None:
            advanced = self._runs.are_any and self._runs.advance()
            if not self._begin_next():
                return self.heed_cancels() or progressed or advanced
            progressed = True
            if now_ns() >= until_ns:
                return True
        return self.heed_cancels() or progressed

    def _begin_next(self) -> bool:
        """Begins one input; False if there is none, or it must wait for those in flight."""
        if self._quarantine.work is not None and self._quarantine.holds():
            return False
        return self._redeliver_next() if self._redelivered else self._take_next()

    def _can_redeliver(self) -> bool:
        return not (self._quarantine.is_for(self._redelivered[0]) and self._runs.are_any)

    def _flush(self) -> bool:
        """Lets outputs go that waited for room; True if any input got on by it."""
        if self.outlets.holds_any:
            self.outlets.shed()
        progressed = self._runs.are_any and self._runs.flush()
        if self._blocked is not None:
            work, lane = self._blocked
            if self.outlets.flush(work):
                self._blocked = None
                self._commit(work, lane)
                progressed = True
        return progressed

    # -- inputs ------------------------------------------------------------------------------------------------------

    def _take_next(self) -> bool:
        """Handles one record of the next lane that has one; False if there is none, or no place for it."""
        inlets = self.inlets
        for _ in inlets.lanes:
            lane = inlets.lanes[inlets.place]
            if (lane.cursor != lane.head or lane.available()) and self._take(lane):
                inlets.took()
                return True
            inlets.turn()
        return False

    def _take(self, lane: Consumer) -> bool:
        header = self.inlets.header(lane, lane.cursor)
        if header.kind == _DATA:
            handler = self._ports.get(header.target)
            if handler is not None:
                return self._begin(Work(header, lane.lane, lane.cursor, 1, handler), lane)
        if header.kind == Kind.END:
            return self._take_end(lane, header)
        if header.kind == Kind.CANCEL:
            self._cancel(header)
        else:
            lane.refuse()
            logger.error("%s: a record of kind %s for port %s was dropped", self.instance, header.kind, header.target)
        self._endpoint.let_go(lane, header, lane.cursor)
        lane.commit()
        return True

    def _begin(self, work: Work, lane: Consumer) -> bool:
        header = work.header
        handler = work.handler
        at_once = handler is None or handler.is_at_once
        # Nothing to ask of what nobody waits for, without a deadline, at the first attempt.
        asks = header.reply_to or header.deadline_ns or work.attempt > 1 or self._is_cut
        refusal = self._refusal(work) if asks else None
        if refusal is None and not at_once and not self._runs.has_place():
            return False
        # Before it is opened: what kills its reader there must become a dead letter too.
        self._table.begin_running(work.lane, work.sequence, work.attempt)
        broken = self._open(work, lane)
        refusal = refusal or broken
        if refusal is not None or handler is None:
            work.value = None
            self._refuse(work, refusal)
            self._commit(work, lane)
        elif at_once:
            self._plain.run(work, handler)
            self._commit(work, lane)
        else:
            work.row = self._table.keep(work.lane, work.sequence, work.attempt, lane.record(work.sequence))
            lane.commit()
            self._runs.start(work, handler)
        return True

    def _open(self, work: Work, lane: Consumer) -> SlabwireError | None:
        """Unpacks an input; what is wrong with it if it cannot be.

        Its block stays leased until it is finished, whatever becomes of its arrays: a successor would unpack it again.
        """
        try:
            if work.header.flags & _BLOCK:
                work.lease = self._endpoint.lease(lane, work.header, work.sequence)
            work.value = decode(work.header, work.lease)
            if work.header.flags & KEYED:
                work.key = take_key(work.value)
        except SlabwireError as error:
            lane.refuse()
            return error
        return None

    def _refusal(self, work: Work) -> SlabwireError | None:
        """Why this input is not handled."""
        header = work.header
        if self._cancels and header.reply_to and header in self._cancels:
            return Cancelled("its caller cancelled it")
        if header.reply_to not in self.outlets.replies and self.outlets.streams_to_nobody(work):
            return Cancelled("its caller is gone, and nobody else gets this stream")
        if header.deadline_ns and now_ns() > header.deadline_ns:
            self._stats.count("expired")
            return DeadlineExceeded(f"the deadline passed while it waited for {self.instance}")
        if self.draining and work.attempt == 1 and self.inlets.is_clients(work.lane):
            return Draining("the graph is stopping and takes no new work")
        if self._is_cut:
            return cut_off_error(self.instance)
        if (attempts := work.attempt - work.pardons) > self.spec.max_attempts:
            return given_up(self.instance, attempts)
        return None

    def _refuse(self, work: Work, error: SlabwireError | None) -> None:
        if error is not None:
            self._recorder.record(self._stats.row, work, now := now_ns(), now, outcome_of(error))
        if isinstance(error, DeadLetter):
            self._stats.count("dead")
            self._buried(self.instance, work, str(error))
        if isinstance(error, Cancelled):
            self._stats.count("cancelled")
        elif error is not None:
            self.outlets.fail(work, error)

    def _commit(self, work: Work, lane: Consumer) -> None:
        """Gives the record back once all outputs have left; until then the actor takes nothing new."""
        if work.outbox and not self.outlets.flush(work):
            self._blocked = (work, lane)
        else:
            lane.commit()
            work.lease = None

    def _take_end(self, lane: Consumer, header: Header) -> bool:
        """The end of a stream goes on when all items before it have been handled."""
        if self._runs.serve(header.key):
            return False
        work = Work(header, lane.lane, lane.cursor, 1, self._ports.get(header.target))
        if work.handler is not None:
            outputs = [each.port for each in self.spec.outputs]
            self.outlets.end_stream(work, [work.handler.spec.port] if work.handler.spec.replies else outputs)
        self._commit(work, lane)
        return True

    # -- callers -----------------------------------------------------------------------------------------------------

    def _cancel(self, header: Header) -> None:
        if self._cancels.remember(header.key):
            self.outlets.forward_cancel(header)
            self._give_up()

    def cancel(self, keys: Iterable[Key]) -> None:
        """Ends what callers that are gone still waited for. All actors hear of it, so nobody is told."""
        for key in keys:
            self._cancels.remember(key)
        self._give_up()

    def _give_up(self) -> None:
        """Ends what is in flight here of the requests that nobody waits for."""
        self.outlets.forget_streams(self._cancels)
        self._runs.cancel_those(lambda work: work.header in self._cancels)
        if self._blocked is not None and self._blocked[0].header in self._cancels:
            self._cut_blocked(self._blocked[0])

    def _cut_blocked(self, work: Work) -> None:
        if work.outbox:
            self._stats.count("cancelled")
            self.outlets.abandon(work)

    def forget_caller(self, endpoint: int) -> None:
        """A client is gone: nothing can be answered to it. What its answered calls have set going goes on."""
        self.outlets.forget_caller(endpoint)
        self._runs.cancel_those(self.outlets.streams_to_nobody)

    def remove_lanes(self, lanes: list[int]) -> None:
        """Nothing that came by them is needed any more."""
        self.inlets.remove(lanes)
        if self._blocked is not None and self._blocked[1].lane in lanes:
            self._cut_blocked(self._blocked[0])
            self._blocked = None

    def turn_out(self, endpoint: int) -> None:
        """A client writes what no client writes: all that it ever asked for ends."""
        self.cancel([(endpoint, EVERY_REQUEST)])
        self.forget_caller(endpoint)
        self.remove_lanes(self.inlets.lanes_of(endpoint))

    def cut_off(self) -> None:
        """The time to drain is over: what is in flight ends with an error, and so does what comes from now on."""
        self.draining = self._is_cut = True
        self._runs.cut_off(cut_off_error(self.instance))

    def leave(self) -> None:
        """The process goes: what it has begun and not finished is its successor's."""
        self._runs.leave()
        for work in (*self._redelivered, *((self._blocked[0],) if self._blocked is not None else ())):
            work.leave()

    # -- recovery ----------------------------------------------------------------------------------------------------

    def recover(self) -> None:
        """Takes up what a predecessor was handling. To be called once, before the first step."""
        ways, adopted = self.outlets.lanes(), self._endpoint.adopted
        self._redelivered.extend(unfinished_works(self._table, self.inlets, ways, self._ports, adopted))
        self._plain.recover(next((work for work in self._redelivered if work.row == RUNNING_ROW), None))
        self._stats.reset_gauges()
        # Else a graph that drains would take an actor that is still starting for one with nothing to do.
        self._stats.show("in_flight", sum(work.row != RUNNING_ROW for work in self._redelivered))

    def _redeliver_next(self) -> bool:
        """Handles again what a predecessor had begun; False if there is no place for it yet."""
        work = self._redelivered[0]
        if not self._can_redeliver():
            return False
        lane = self.inlets.find(work.lane)
        if lane is None:
            if work.row:
                self._table.clear(work.row)
        elif work.row == RUNNING_ROW:
            if not self._begin(work, lane):
                return False
        else:
            self._begin_again(work, lane)
            if self._quarantine.is_for(work) and not work.finished:
                self._quarantine.put(work)
        self._stats.count("redelivered")
        self._redelivered.popleft()
        return True

    def _begin_again(self, work: Work, lane: Consumer) -> None:
        """Starts an input that has its row from a predecessor."""
        self._table.restart(work.row, work.attempt)
        refusal = self._refusal(work) or resumed(work, self.outlets.ways_out, self.instance)
        broken = self._open(work, lane)
        refusal = refusal or broken
        if work.last is not None:
            self._end_again(work, *work.last)
        elif refusal is None and work.handler is not None:
            self._runs.start(work, work.handler)
        else:
            work.value = None
            self._refuse(work, refusal)
            self._runs.end(work)

    def _end_again(self, work: Work, kind: int, ordinal: int) -> None:
        """Its handler was done, and had begun to say so: the rest of the ways hear of it."""
        work.value = None
        work.ordinal = ordinal
        if kind == Kind.END and work.handler is not None:
            self.outlets.end_stream(work, [work.handler.spec.port])
        self._runs.end(work)
