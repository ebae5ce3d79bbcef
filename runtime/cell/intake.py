"""Takes inputs out of the lanes of one actor instance and brings each to its handler, or says why not."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextvars import copy_context

from ...shm.bell import now_ns
from ...shm.consumer import Consumer
from ..actor.handler import Handler
from ..errors import (
    Cancelled,
    DeadLetter,
    DeadlineExceeded,
    Draining,
    MessageError,
    SlabwireError,
    cut_off_error,
)
from ..message.delegated import take_hops
from ..message.encoding import decode
from ..message.header import Flag, Header, Kind, take_key
from .answers import Answers
from .cancels import Cancels
from .inlets import Inlets
from .outlets import Outlets
from .runs import PlainRuns, Runs
from .work import Work

logger = logging.getLogger("slabwire")

# Members of an enumeration are looked up by attribute, at every message.
_DATA, _BLOCK, _KEYED, _DELEGATED = int(Kind.DATA), Flag.BLOCK, Flag.KEYED, Flag.DELEGATED


class Intake:
    """`ports` maps the number of an input port to its handler. `cancelled` is told of each record that cancels.
    `is_draining`: no new work of clients is taken; `is_cut`: nothing is.

    `blocked` is an input whose handler is done and whose outputs find no room, with its lane: until they have left the
    actor takes nothing new. One thread.
    """

    def __init__(
        self,
        instance: str,
        max_attempts: int,
        ports: Mapping[int, Handler],
        inlets: Inlets,
        outlets: Outlets,
        cancels: Cancels,
        answers: Answers,
        plain: PlainRuns,
        runs: Runs,
        cancelled: Callable[[Header], None],
    ) -> None:
        self.instance = instance
        self.ports = ports
        self.inlets = inlets
        self.plain = plain
        self.blocked: tuple[Work, Consumer] | None = None
        self.is_draining = self.is_cut = False
        self._max_attempts = max_attempts
        self._cancels = cancels
        self._cancelled = cancelled
        self._outlets = outlets
        self._table = outlets.table
        self._endpoint = outlets.endpoint
        self._answers = answers
        self._runs = runs

    def take_next(self) -> bool:
        """Handles one record of the next lane that has one; False if there is none, or no place for it."""
        inlets = self.inlets
        for _ in inlets.lanes:
            lane = inlets.lanes[inlets.place]
            if (lane.cursor != lane.head or lane.available()) and self._take(lane):
                inlets.left -= 1
                if inlets.left <= 0:
                    inlets.turn()
                return True
            inlets.turn()
        return False

    def can_take(self) -> bool:
        """Whether `take_next` would handle a record now."""
        for lane in self.inlets.lanes:  # noqa: SIM110 - `any` of a generator costs more than the look itself
            if lane.available() and not self._must_wait(lane):
                return True
        return False

    def _must_wait(self, lane: Consumer) -> bool:
        """Whether the next record of a lane must wait for one of the inputs in flight."""
        header = self.inlets.header(lane, lane.cursor)
        if header.kind == Kind.END:
            return self._runs.serves(header.key)
        handler = self.ports.get(header.target) if header.kind == Kind.DATA else None
        return handler is not None and not handler.is_at_once and not self._runs.has_place()

    def _take(self, lane: Consumer) -> bool:
        header = self.inlets.header(lane, lane.cursor)
        if header.kind == _DATA:
            handler = self.ports.get(header.target)
            if handler is not None:
                return self.begin(Work(header, lane.lane, lane.cursor, 1, handler), lane)
        if header.kind == Kind.END:
            return self._take_end(lane, header)
        if header.kind == Kind.CANCEL:
            self._cancelled(header)
        else:
            lane.refuse()
            logger.error("%s: a record of kind %s for port %s was dropped", self.instance, header.kind, header.target)
        self._endpoint.let_go(lane, header, lane.cursor)
        lane.commit()
        return True

    def begin(self, work: Work, lane: Consumer) -> bool:
        """Begins an input whose record is the next of its lane; False, with nothing done, if there is no place for it.

        A plain handler has run when this returns.
        """
        header = work.header
        handler = work.handler
        at_once = handler is None or handler.is_at_once
        # Nothing to ask of an input that nobody waits for, without a deadline, at the first attempt.
        asks = header.reply_to or header.deadline_ns or work.attempt > 1 or self.is_cut
        refusal = self.refusal_of(work) if asks else None
        if refusal is None and not at_once and not self._runs.has_place():
            return False
        # Before it is opened: what kills its reader there must become a dead letter too.
        self._table.begin_running(work.lane, work.sequence, work.attempt)
        broken = self.open(work, lane)
        refusal = refusal or broken
        if refusal is not None or handler is None:
            self.refuse(work, refusal)
            self._commit(work, lane)
        elif at_once:
            # A ContextVar that a handler sets is not set for the next input.
            copy_context().run(self.plain.run, work, handler)
            if work.outbox:
                self._commit(work, lane)
            else:
                lane.commit()
                work.lease = None
        else:
            self._runs.keep(work, lane)
            self._runs.start(work, handler)
        return True

    def refusal_of(self, work: Work) -> SlabwireError | None:
        """Why an input is not handled: nobody waits for it, its time is over, or its actor has died of it too often."""
        header = work.header
        if self._cancels.keys and header.reply_to and header.key in self._cancels:
            return Cancelled("its caller cancelled it")
        if header.reply_to not in self._outlets.replies and self._outlets.streams_to_nobody(work):
            return Cancelled("its caller is gone, and nobody else gets this stream")
        if header.deadline_ns and now_ns() > header.deadline_ns:
            self._outlets.stats.count("expired")
            return DeadlineExceeded(f"the deadline passed while it waited for {self.instance}")
        if self.is_draining and work.attempt == 1 and self.inlets.is_clients(work.lane):
            return Draining("the graph is stopping and takes no new work")
        if self.is_cut:
            return cut_off_error(self.instance)
        if (attempts := work.attempt - work.pardons) > self._max_attempts:
            often = "once" if attempts == 2 else f"{attempts - 1} times"
            return DeadLetter(f"{self.instance} died {often} while handling it; it is not tried again")
        return None

    def open(self, work: Work, lane: Consumer) -> SlabwireError | None:
        """Unpacks an input; returns what is wrong with it if it cannot be.

        Its block stays leased until it is finished, whatever becomes of its arrays: a successor would unpack it again.
        """
        try:
            if work.header.flags & _BLOCK:
                work.lease = self._endpoint.lease(lane, work.header, work.sequence)
            work.value = decode(work.header, work.lease)
            if work.header.flags & _KEYED:
                work.key = take_key(work.value)
            if work.header.flags & _DELEGATED:
                if self.inlets.is_clients(work.lane):
                    raise MessageError("a client hands nothing on")
                work.hops, work.reports = take_hops(work.value)
        except SlabwireError as error:
            lane.refuse()
            return error
        return None

    def refuse(self, work: Work, error: SlabwireError | None) -> None:
        """Answers an input that is not handled; without an error it has no handler, and nobody hears of it."""
        work.value = None
        if error is not None:
            self._answers.refuse(work, error)

    def end_delegated(self, work: Work, lane: Consumer) -> None:
        """The next record of a lane, which a predecessor has handed on: only its caller may have to be told."""
        self.open(work, lane)
        self._outlets.delegations.tell_again(work)
        self._commit(work, lane)

    def _take_end(self, lane: Consumer, header: Header) -> bool:
        """The end of a stream goes on when all items before it have been handled."""
        if self._runs.serves(header.key):
            return False
        work = Work(header, lane.lane, lane.cursor, 1, self.ports.get(header.target))
        if work.handler is not None:
            spec = work.handler.spec
            self._outlets.end_stream(work, [spec.port] if spec.replies else self._outlets.outputs)
        self._commit(work, lane)
        return True

    # -- an input whose outputs wait ---------------------------------------------------------------------------------

    def _commit(self, work: Work, lane: Consumer) -> None:
        """Gives the record back once all outputs have left; until then the actor takes nothing new."""
        if work.outbox and not self._outlets.flush(work):
            self.blocked = (work, lane)
        else:
            lane.commit()
            work.lease = None

    def flush(self) -> bool:
        """Lets the outputs go that wait; True if all have left."""
        if self.blocked is None:
            return False
        work, lane = self.blocked
        if not self._outlets.flush(work):
            return False
        self.blocked = None
        self._commit(work, lane)
        return True
