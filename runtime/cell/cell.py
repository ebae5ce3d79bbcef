"""One actor instance inside its worker: what is done in its turns, and what it hears about its callers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from ...shm.bell import now_ns
from ...shm.consumer import Consumer
from ..actor.actor import Actor
from ..actor.handler import Handler
from ..dataplane.input_streams import InputStreams
from ..errors import cut_off_error
from ..message.capacities import EVERY_REQUEST, Key
from ..message.header import Header
from ..spec import ActorSpec, HandlerKind
from ..telemetry.flight_recorder import Recorder
from .answers import Answers
from .batches import Batches
from .cancels import Cancels
from .coroutines import Coroutines
from .generators import Generators
from .inlets import KINDS_OF_ITEMS, Inlets
from .intake import Intake
from .outlets import Outlets
from .redelivery import Redelivery
from .reply_streams import ReplyStreams
from .runs import HandlerRunner, PlainRuns, Runs
from .work import Work

# Handlers whose actor needs the loop at work while there is any: for their own awaits, or for those of the tasks that
# make the items of reply streams.
_ON_THE_LOOP: frozenset[HandlerKind] = frozenset(("coroutine", "async_generator", "reply_stream"))


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
        outlets: Outlets,
        recorder: Recorder,
        loop: asyncio.AbstractEventLoop,
        buried: Callable[[str, Work, str], None],
    ) -> None:
        self.instance = instance
        self.spec = spec
        self.actor = actor
        self.outlets = outlets
        self.inlets = Inlets(outlets.routes)
        self.item_inlets = Inlets(outlets.routes, KINDS_OF_ITEMS)
        self.answers = Answers(instance, outlets, recorder, buried)
        self.is_async = any(each.spec.kind in _ON_THE_LOOP for each in ports.values())
        self._stats = outlets.stats
        self._shown = 0  # by `show_outbox`
        self._cancels = Cancels()
        self._runs = Runs(outlets, recorder, loop, spec.concurrency)
        self.reply_streams = ReplyStreams(self._runs, outlets, self.answers)
        self.inputs = InputStreams(
            outlets.endpoint, outlets.table, outlets.look_for_lanes, lambda key: self._redelivery.is_to_begin(key)
        )
        coroutines = Coroutines(self._runs, outlets, self.answers, self.inputs)
        self._runs.use(_kinds(ports, self._runs, outlets, self.answers, self.reply_streams, coroutines))
        self._intake = Intake(
            instance,
            spec.max_attempts,
            ports,
            self.inlets,
            outlets,
            self._cancels,
            self.answers,
            PlainRuns(outlets, self.answers, recorder),
            self._runs,
            self._cancel,
        )
        self._redelivery = Redelivery(instance, outlets, self._intake, self._runs)

    def add_lane(self, lane: Consumer, caller: int, *, client: int, of_items: bool) -> None:
        """One more lane in, from the endpoint `caller`: of items of streams that it sends, or of all else. `client` is
        its number where it is a client.
        """
        (self.item_inlets if of_items else self.inlets).add(lane, client=client)
        if of_items:
            self.inputs.lanes[caller] = lane

    def handler(self, port: int) -> Handler | None:
        """The handler behind the number of an input port, if it is this actor's."""
        return self._intake.ports.get(port)

    def behind_handlers(self) -> list[object]:
        """All objects that a handler returns to."""
        return [
            self._intake.plain,
            *self._runs.kinds,
            self._runs,
            self._intake,
            self.answers,
            self.outlets,
            self,
        ]

    # -- what the worker's loop asks ---------------------------------------------------------------------------------

    def is_ready(self) -> bool:
        """Whether `step` may find something to do."""
        return bool(self._has_begun() or self.outlets.holds_any or self.inlets.has_input() or self._has_items())

    def _has_items(self) -> bool:
        return bool(self.item_inlets.lanes) and self.item_inlets.has_input()

    def next_deadline_ns(self) -> int:
        """The earliest deadline among the records that are next in their lanes; 0 if none has one."""
        return min((each.deadline_ns for each in self.inlets.next_headers() if each.deadline_ns), default=0)

    def can_progress(self) -> bool:
        """Whether a step now would get anywhere: the last look before the worker sleeps."""
        if (self.outlets.holds_any and self.outlets.can_shed()) or self._cancels.may_lie_in(self.inlets.lanes):
            return True
        if self._has_items() and not all(map(self.inputs.must_wait, self.item_inlets.next_headers())):
            return True
        if self._intake.blocked is not None:
            return self.outlets.could_go(self._intake.blocked[0])
        if (self._runs.works or self._runs.held_up) and self._runs.can_progress():
            return True
        if self._redelivery.quarantine.work is not None and self._redelivery.quarantine.holds():
            return False
        return self._redelivery.can_begin() if self._redelivery.waiting else self._intake.can_take()

    def waits_for_room(self) -> bool:
        """Whether anything goes on only when there is room for what was sent."""
        if self._intake.blocked or self.outlets.holds_any or self._runs.held_up:
            return True
        return bool(self._runs.works) and self._runs.waits_for_room()

    def stats(self) -> dict[str, int]:
        """What is in flight, and how many messages wait to leave."""
        works = self._runs.works.values()
        blocked = len(self._intake.blocked[0].outbox) if self._intake.blocked is not None else 0
        outbox = blocked + sum(len(work.outbox) for work in works) + self.outlets.waiting()
        return {"in_flight": len(works), "outbox": outbox}

    def show_outbox(self) -> None:
        """Tells the supervisor what finds no room: who sleeps because of that does not hang."""
        outbox = max(1, self.stats()["outbox"]) if self.waits_for_room() else 0
        if outbox != self._shown:
            self._shown = outbox
            self._stats.show("outbox", outbox)

    def next_wake_ns(self) -> int:
        """When time alone will give something to do, on CLOCK_MONOTONIC; 0 for never."""
        if not self._has_begun():
            return 0
        blocked = self._intake.blocked[0].due_ns() if self._intake.blocked else 0
        alone = self._redelivery.quarantine.until_ns()
        dues = blocked, alone, self._redelivery.next_due_ns(), self._runs.next_due_ns()
        return min(filter(None, dues), default=0)

    def _has_begun(self) -> object:
        """Whether there are inputs here that have left their lanes, or wait to be begun again."""
        runs, redelivery = self._runs, self._redelivery
        return self._intake.blocked or runs.works or runs.held_up or redelivery.waiting or redelivery.quarantine.work

    def step(self, until_ns: int) -> bool:
        """Does work for about as long as `until_ns` says, on CLOCK_MONOTONIC; True if it did any."""
        intake, redelivery, works = self._intake, self._redelivery, self._runs.works
        progressed = self._flush()
        if self._has_items():
            progressed = self._take_items() or progressed
        if intake.blocked is not None and works:
            progressed = self.reply_streams.advance() or progressed  # they take nothing new
        while intake.blocked is None:
            advanced = bool(works) and self._runs.advance()
            is_behind = redelivery.waiting or redelivery.quarantine.work
            took = redelivery.begin_next() if is_behind else intake.take_next()
            progressed = progressed or took or advanced
            if not (took or advanced) or now_ns() >= until_ns:
                break
        return self.heed_cancels() or progressed

    def _take_items(self) -> bool:
        """Brings the items of streams that callers send to these, whatever holds up other inputs; True if any came."""
        came = False
        for lane in self.item_inlets.lanes:
            for _ in range(lane.available()):  # no more, for a caller may send as fast as they are taken
                if not self.inputs.take(lane, self.item_inlets.header(lane, lane.cursor)):
                    break
                came = True
        return came

    def _flush(self) -> bool:
        """Lets outputs go that waited for room; True if any input got on by it."""
        if self.outlets.holds_any:
            self.outlets.shed()
        progressed = bool(self._runs.held_up) and self._runs.flush()
        return (self._intake.blocked is not None and self._intake.flush()) or progressed

    # -- callers -----------------------------------------------------------------------------------------------------

    def heed_cancels(self) -> bool:
        """Ends what callers have lost interest in, though their word lies behind inputs that must wait."""
        for header in (found := list(self._cancels.found_in(self.inlets))):
            self._cancel(header)
        return bool(found)

    def _cancel(self, header: Header) -> None:
        if self._cancels.remember(header.key):
            self.outlets.cancels.forward(header, self.outlets.delegations.taken_from(header.key))
            if header.request == EVERY_REQUEST:
                self._give_up()
                return
            self.outlets.callers.forget_stream(header.key)
            self._runs.cancel(header.key)
            self._cut_blocked_of_cancelled()

    def cancel(self, keys: Iterable[Key]) -> None:
        """Ends what callers that are gone still waited for. All actors hear of it, so nobody is told."""
        for key in keys:
            self._cancels.remember(key)
        self._give_up()

    def _give_up(self) -> None:
        """Ends what is in flight here of the requests that nobody waits for."""
        self.outlets.callers.forget_streams(self._cancels.__contains__)
        self._runs.cancel_those(lambda work: work.header.key in self._cancels)
        self._cut_blocked_of_cancelled()

    def _cut_blocked_of_cancelled(self) -> None:
        if self._intake.blocked is not None and self._intake.blocked[0].header.key in self._cancels:
            self._cut_blocked()

    def _cut_blocked(self) -> None:
        """The outputs for which the actor takes nothing new are wanted no more."""
        if self._intake.blocked is not None and self._intake.blocked[0].outbox:
            self._stats.count("cancelled")
            self.outlets.abandon(self._intake.blocked[0])
            self.outlets.report_cancelled(self._intake.blocked[0])

    def forget_caller(self, endpoint: int) -> None:
        """A client is gone: nothing can be answered to it. What its answered calls have set going goes on."""
        self.outlets.callers.forget_caller(endpoint)
        self.outlets.delegations.forget_caller(endpoint)
        self._runs.cancel_those(self.outlets.streams_to_nobody)

    def remove_lanes(self, lanes: list[int]) -> None:
        """Nothing that came by these lanes is needed any more."""
        self.inlets.remove(lanes)
        self.item_inlets.remove(lanes)
        self.inputs.forget_lanes(lanes)
        if self._intake.blocked is not None and self._intake.blocked[1].lane in lanes:
            self._cut_blocked()
            self._intake.blocked = None

    def turn_out(self, endpoint: int) -> None:
        """A client writes what no client writes: all that it ever asked for ends."""
        self.cancel([(endpoint, EVERY_REQUEST)])
        self.forget_caller(endpoint)
        self.remove_lanes([*self.inlets.lanes_of(endpoint), *self.item_inlets.lanes_of(endpoint)])

    def corrupt_clients(self) -> set[int]:
        """The clients whose lanes hold impossible words."""
        of_lanes_in = self.inlets.corrupt_clients() | self.item_inlets.corrupt_clients()
        return of_lanes_in | self.outlets.callers.corrupt()

    # -- the beginning and the end -----------------------------------------------------------------------------------

    def recover(self) -> None:
        """Takes up what a predecessor was handling. To be called once, before the first step."""
        self._redelivery.recover()

    def drain(self) -> None:
        """From now on no new work of clients is taken."""
        self._intake.is_draining = True

    def cut_off(self) -> None:
        """The time to drain is over: what is in flight ends with an error, and so does what comes from now on."""
        self._intake.is_draining = self._intake.is_cut = True
        self._runs.cut_off(cut_off_error(self.instance))

    def leave(self) -> None:
        """The process goes: what it has begun and not finished is its successor's, and so is all that waits. The worker
        takes turns until its last task has ended, and none of these may begin a handler whose actor has stopped.
        """
        self.inlets.shut()
        self.item_inlets.shut()
        self._runs.hand_on()
        blocked = self._intake.blocked
        for work in (*self._redelivery.waiting, *(blocked[:1] if blocked is not None else ())):
            work.hand_on()


def _kinds(
    ports: dict[int, Handler],
    runs: Runs,
    outlets: Outlets,
    answers: Answers,
    reply_streams: ReplyStreams,
    coroutines: Coroutines,
) -> dict[int, HandlerRunner]:
    """What runs each handler, by the number of its port."""
    batched = {number: each.spec.batch for number, each in ports.items() if each.spec.batch}
    batches = Batches(runs, outlets, answers, batched)
    runners: dict[HandlerKind, HandlerRunner] = {
        "generator": Generators(runs, outlets, answers),
        "coroutine": coroutines,
        "async_generator": coroutines,
        "reply_stream": reply_streams,
    }
    return {
        number: batches if number in batched else runners[each.spec.kind]
        for number, each in ports.items()
        if not each.is_at_once
    }
