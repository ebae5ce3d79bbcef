"""A worker at work: polls its lanes, runs its actors, ticks asyncio, parks."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
from collections.abc import Callable
from typing import Any

from ...shm.bell import BLOCKS, ROOM, now_ns
from ..actor.actor import Actor, handlers_of
from ..actor.user_code import construct
from ..cell.binding import CellBinding
from ..cell.cell import Cell
from ..cell.outlets import Outlets
from ..cell.own_tasks import OwnTasks
from ..cell.work import Work
from ..control import worker_line
from ..control.channel import Assignment
from ..dataplane.async_calls import AsyncCalls
from ..dataplane.descriptor_channel import Link
from ..errors import CorruptLane, Disconnected
from ..graph.compiled import Routing
from ..spec import ActorSpec, GraphSpec, PortRef
from ..telemetry.flight_recorder import Happening, Recorder
from ..telemetry.stats import CellStats
from . import parking_loop
from .garbage import Garbage
from .lease_report import holdings, tell_what_is_out
from .stages import Startup, end_tasks, retire
from .supervisor_line import ControlLine
from .turns import Turns, look_into
from .wiring import Wiring

logger = logging.getLogger("slabwire")

# While a coroutine waits for something outside, asyncio gets a look at least this often.
TICK_NS = 1_000_000


class Worker:
    """The actors of one process and the loop that runs them: made, built, started and run in this order. One thread."""

    def __init__(
        self,
        name: str,
        link: Link,
        line: ControlLine,
        spec: GraphSpec,
        assignment: Assignment,
        make: Callable[[ActorSpec], Actor] = construct,
        graph: str = "",
        garbage: Garbage | None = None,
    ) -> None:
        self.name = name
        self._make = make
        self._assignment = assignment
        self._graph = graph
        self._garbage = garbage
        self.routing = Routing(spec)
        self.loop, self._selector = parking_loop.new_parking_loop()
        self.link = link
        self._line = line
        self._turns = Turns({each: self._spec_of(each).weight for each in assignment.instances})
        self.cells = self._turns.cells
        self.wiring = Wiring(link, assignment, self.routing, self.cells, self.report)
        self.endpoint, self.caller = self.wiring.endpoint, self.wiring.caller
        self.caller.streams.loop = self.loop
        self._calls = AsyncCalls(self.caller, self.caller.calls, self.loop)
        self._bindings: list[CellBinding] = []
        self._stopping = False
        self._last_tick_ns = 0
        self.own = OwnTasks(self.loop, self.cells)

    def _spec_of(self, instance: str) -> ActorSpec:
        return self.routing.spec.actor(self.routing.actor_of[instance])

    # -- building ----------------------------------------------------------------------------------------------------

    def build(self) -> None:
        """Constructs the actors and takes over what a predecessor left. Raises LoadError."""
        actors = {each: self._make(self._spec_of(each)) for each in self._assignment.instances}
        counters, recorder = self.wiring.connect()
        self._note(Happening.STARTED)
        for row, (instance, actor) in enumerate(actors.items()):
            self._add_cell(instance, actor, CellStats(counters, row), recorder)
        self._is_async = any(cell.is_async for cell in self.cells.values())
        self.wiring.cells_made()
        self._watch()

    def _add_cell(self, instance: str, actor: Actor, stats: CellStats, recorder: Recorder) -> None:
        spec, table = self._spec_of(instance), self.wiring.tables[instance]
        outlets = Outlets(spec.name, self.routing, self.endpoint, table, stats, self.link.pump, self.caller)
        binding = CellBinding(
            instance,
            tuple(self._assignment.cores),
            self._assignment.threads,
            self.endpoint,
            outlets,
            self._calls,
            self.wiring.custody,
            self.own,
            type(actor).__outputs__,
            self._graph,
        )
        actor._binding = binding
        self._bindings.append(binding)
        handlers = handlers_of(actor, spec.name)
        known = {port: self.routing.number.get(PortRef(spec.name, port)) for port in handlers}  # else it is newer code
        ports = {number: handlers[port] for port, number in known.items() if number is not None}
        cell = Cell(instance, spec, actor, ports, outlets, recorder, self.loop, self._buried)
        binding.reply_streams = cell.reply_streams
        self._turns.add(instance, cell, stats)

    def _buried(self, instance: str, work: Work, reason: str) -> None:
        self.report(worker_line.Dead(instance, reason, work.header.request, work.header.trace))

    def _watch(self) -> None:
        bell, wait = self.endpoint.bell, self.endpoint.wait
        if bell is None or wait is None:
            raise Disconnected("the supervisor handed over no bell")
        self._selector.watch(wait, self._reasons, self._has_news, self._rest, self._asleep, self._between_rounds)
        for each in (bell.fd, self.link.channel.fileno(), self._line.fileno()):
            self.loop.add_reader(each, self.loop.stop)

    # -- running -----------------------------------------------------------------------------------------------------

    def start_actors(self) -> None:
        """Runs the actors' `on_start`. An actor that has started serves calls of those that are still starting."""
        startup = Startup(self.cells, self.loop, self.own)
        self._turns.awake = startup.awake
        startup.finish(self.turn)
        self._turns.awake = None
        if self._garbage is not None:
            self._garbage.settle()
        self._note(Happening.READY)
        self.report(worker_line.Ready())

    def finish(self, result: Any) -> None:
        """Goes on working until what a hook has returned is done, if it is to be awaited."""
        if inspect.isawaitable(result):
            task = asyncio.ensure_future(result, loop=self.loop)
            task.add_done_callback(lambda _: self.loop.stop())
            while not task.done():
                self.turn()
            task.result()

    def run(self) -> None:
        """Works until the supervisor says stop."""
        while not self._stopping:
            self.turn()
        for cell in self.cells.values():
            self.finish(cell.actor.on_stop())
        self._pardon()
        tell_what_is_out(self.endpoint)

    def _pardon(self) -> None:
        for table in self.wiring.tables.values():
            table.pardon()

    def turn(self, longest_s: float | None = None) -> bool:
        """Does what there is to do, or waits for more, `longest_s` at most; True if there was any. Parts with clients
        that write what no client writes.
        """
        try:
            if self.endpoint.corrupt:
                raise CorruptLane("its lanes were corrupt when they arrived")
            if self._work():
                return True
            self._wait(longest_s)
        except CorruptLane as error:
            self.wiring.shut_out(error)
        return False

    def _wait(self, longest_s: float | None) -> None:
        """Until something comes: looking for a while if that has paid lately, then parked."""
        wait = self.endpoint.wait
        # While an outlet is full, waiting inputs are no news, and only the bell announces room: spinning is in vain.
        is_held_up = any(cell.waits_for_room() for cell in self.cells.values())
        if wait is not None and (is_held_up or not wait.spin(self._look())):
            parking_loop.sleep(self.loop, self._selector, self._sleep_s(longest_s))
            # Else nobody but the bell has called: looking costs as much as a message.
            if self._selector.was_called or self.own.fatal:
                self.obey()

    def _look(self) -> Callable[[], Any]:
        """Tells whether there is news in any of the lanes as they are now."""
        lanes = [*self.caller.replies, *(lane for cell in self.cells.values() for lane in cell.lanes_in())]
        look = look_into(lanes)
        return (lambda: look() or self.caller.has_news()) if self.caller.streams.waiting else look

    def _work(self) -> bool:
        before = self.caller.in_flight
        progressed = self.caller.pump()
        answers = before - self.caller.in_flight
        progressed |= self._turns.take_one()
        now = now_ns()
        if is_due := now - self._last_tick_ns > TICK_NS:
            self._show(now)
        if is_due or (progressed and (self._is_async or self.caller.in_flight)):
            self._tick(answers)
        if is_due:
            self._last_tick_ns = now
            self.obey()
        return progressed

    def _tick(self, answers: int) -> None:
        """Lets asyncio do what is due. What the tasks of several `answers` send is rung for once."""
        if answers > 1:
            self.caller.rings.hold()
        try:
            parking_loop.tick(self.loop, self._selector)
        finally:
            self.caller.rings.ring()

    def _has_news(self) -> bool:
        """The last look after parking: also for forwarded blocks that came back while nobody would ring for them."""
        is_answered = self.caller.collect() or self.caller.has_news()
        if is_answered or any(cell.can_progress() for cell in self._turns.serving()):
            self.loop.stop()
            return True
        return False

    def _between_rounds(self) -> None:
        """While tasks keep the loop from sleeping: it is alive, and lanes are looked at all the same."""
        now = now_ns()
        if now - self._last_tick_ns > TICK_NS:
            self._last_tick_ns = now
            self._show(now_ns())
        self._has_news()

    def _reasons(self) -> int:
        room = any(cell.waits_for_room() for cell in self.cells.values())
        return self.caller.reasons() | (ROOM | BLOCKS if room else 0)

    def _sleep_s(self, longest_s: float | None) -> float | None:
        due = [at for cell in self.cells.values() if (at := cell.next_wake_ns())]
        if look_at := self.endpoint.trim(now_ns()):
            due.append(look_at)
        left_s = [max(0.0, (min(due) - now_ns()) / 1e9)] if due else []
        return min(left_s if longest_s is None else [*left_s, longest_s], default=None)

    def _rest(self, now: int, longest_s: float | None) -> float | None:
        return longest_s if self._garbage is None else self._garbage.rest(now, longest_s, self._has_news)

    def _asleep(self, asleep: bool) -> None:
        if asleep:
            self._show(0)
            return
        self._last_tick_ns = now = now_ns()  # the selector has just looked at the descriptors of whoever may call
        if self._garbage is not None:
            self._garbage.woke(now)
        if self.wiring.stats is not None:
            self.wiring.stats.show(alive_ns=now)

    def _show(self, alive_ns: int) -> None:
        """Shows the supervisor how this process fares; `alive_ns` is now, or 0 where it is about to sleep."""
        stats, wait, pool = self.wiring.stats, self.endpoint.wait, self.endpoint.pool
        for cell in self.cells.values():
            cell.show_outbox()
        if ran_ns := self._selector.take_ran_ns():
            self._turns.credit(ran_ns, self.own.busy)
        if stats is not None and wait is not None:
            stats.show(
                **wait.stats(),
                **(self._garbage.stats() if self._garbage is not None else {}),
                slab_bytes=pool.nbytes,
                slab_used_bytes=pool.used_nbytes,
                blocks_out=pool.blocks_out,
                alive_ns=alive_ns,
            )

    # -- control -----------------------------------------------------------------------------------------------------

    def obey(self) -> None:
        """Hears the supervisor, on both lines."""
        self._selector.was_called = False
        if self.own.fatal is not None:
            self._pardon()  # no input is to blame
            raise self.own.fatal
        self.link.pump()
        while (order := self._line.next_order()) is not None:
            self._obey(order)

    def _obey(self, order: worker_line.Order) -> None:
        match order:
            case worker_line.Drain():
                self._note(Happening.DRAINING)
                self.own.drain()
            case worker_line.Cut():
                for cell in self.cells.values():
                    cell.cut_off()
            case worker_line.Retire(within_s):
                self._note(Happening.DRAINING)
                cells = list(self.cells.values())
                retiring = retire(cells, self.caller, self.own, self.report, within_s, self._heed_cancels)
                self._retiring = self.loop.create_task(retiring)
            case worker_line.Stop():
                self.stop()
            case worker_line.Seat(cores, spin):
                self.endpoint.allow_spinning(spin)
                for binding in self._bindings:
                    binding.cores = tuple(cores)
            case worker_line.TellHoldings(token):
                self.report(worker_line.Holdings(token, holdings(self.endpoint)))

    def _heed_cancels(self) -> None:
        """In a worker that takes no inputs any more. Parts with clients as a turn does."""
        try:
            for cell in self.cells.values():
                cell.inlets.look_into_held()
                cell.heed_cancels()
        except CorruptLane as error:
            self.wiring.shut_out(error)

    def _note(self, happening: Happening) -> None:
        if self.wiring.recorder is not None:
            self.wiring.recorder.note(happening, now_ns(), os.getpid())

    def stop(self) -> None:
        """Leaves after the work at hand; what is in flight is taken up by a successor, if there is one."""
        self._note(Happening.STOPPING)
        self._stopping = self.own.are_over = True
        self.loop.stop()

    def report(self, report: worker_line.Report) -> None:
        """Tells the supervisor."""
        self._selector.was_called = True  # sending may take in what has come, and then its descriptor stays silent
        self._line.report(report)

    def unwind(self) -> bool:
        """Lets go of all actors, and ends every task and generator while what they use is there; whether all have.

        What was in flight is taken up by a successor, if there is one.
        """
        for cell in self.cells.values():
            cell.leave()
        ending = asyncio.ensure_future(end_tasks(), loop=self.loop)
        self.finish(ending)
        self.cells.clear()
        self._turns.awake = None
        return ending.result()

    def close(self) -> None:
        """Gives back what it holds of the graph. Arrays that somebody keeps stay valid."""
        self.endpoint.close()
        self.link.close()
        self.loop.close()
