"""A worker at work: polls its lanes, runs its actors, ticks asyncio, parks."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
from collections.abc import Callable
from typing import Any

from ...shm.bell import now_ns
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
from .sleeper import Sleeper
from .stages import Startup, end_tasks, retire
from .supervisor_line import ControlLine
from .turns import Turns
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
        self.is_round_due = False
        self._sleeper: Sleeper | None = None
        self._has_skipped = False  # the actors, for answers that had come
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
        self._sleeper = Sleeper(wait, self.endpoint, self.caller, self._turns, self._garbage, self._show, self._woke)
        callers = self.link.channel.fileno(), self._line.fileno()
        self._selector.watch(self._sleeper, self, callers)
        for each in (bell.fd, *callers):
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
            try:
                self._heed()
                parking_loop.stay(self.loop, self._selector)
            except CorruptLane as error:
                self.wiring.shut_out(error)
        self.caller.rings.ring()
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
            worked = self.work()
            if self.is_round_due:
                self._tick()
                self._heed()
            if not worked and self._sleeper is not None and not self._sleeper.spins():
                parking_loop.sleep(self.loop, self._selector, self._sleeper.longest_s(longest_s))
                self._heed()
            return worked
        except CorruptLane as error:
            self.wiring.shut_out(error)
        return False

    def work(self) -> bool:
        """Takes in answers, and gives the actor whose turn it is a quantum; whether there was anything to do."""
        if self.endpoint.corrupt:
            raise CorruptLane("its lanes were corrupt when they arrived")
        caller = self.caller
        before = caller.in_flight
        worked = caller.pump()
        answers = before - caller.in_flight
        # Who waits for answers mostly has nothing else to do: then two looks at the actors would be one too many.
        if not worked or self._has_skipped:
            worked |= self._turns.take_one()
            self._has_skipped = False
        else:
            self._has_skipped = True
        now = now_ns()
        if is_due := now - self._last_tick_ns > TICK_NS:
            self._last_tick_ns = now
            self._show(now)
        self.is_round_due = is_due or (worked and (self._is_async or caller.in_flight > 0))
        if answers > 1 and self.is_round_due:
            caller.rings.hold()  # what the tasks of several answers send is rung for once
        return worked

    def round_ended(self) -> None:
        if self.caller.rings.is_holding:
            self.caller.rings.ring()
        self._heed()

    def _tick(self) -> None:
        """Lets asyncio do what is due."""
        try:
            parking_loop.tick(self.loop, self._selector)
        finally:
            self.caller.rings.ring()

    def stops_for_news(self) -> bool:
        if self._sleeper is not None and self._sleeper.has_news():
            self.loop.stop()
            return True
        return False

    def between_rounds(self) -> None:
        now = now_ns()
        if now - self._last_tick_ns > TICK_NS:
            self._last_tick_ns = now
            self._show(now)
        self.stops_for_news()

    def _woke(self, now: int) -> None:
        self._last_tick_ns = now  # the selector has just looked at the descriptors of whoever may call
        if self.wiring.stats is not None:
            self.wiring.stats.show_alive(now)

    def _show(self, alive_ns: int = 0) -> None:
        """Shows the supervisor how this process fares; `alive_ns` is now, or 0 where it is about to sleep."""
        for cell in self.cells.values():
            cell.show_outbox()
        if ran_ns := self._selector.take_ran_ns():
            self._turns.credit(ran_ns, self.own.busy)
        if (stats := self.wiring.stats) is not None and self.endpoint.wait is not None:
            pool, wait, garbage = self.endpoint.pool, self.endpoint.wait, self._garbage
            stats.show(
                wait.spins,
                wait.bell.parks,
                wait.bell.wakes,
                wait.contended,
                *((garbage.collections, garbage.collecting_ns, garbage.longest_ns) if garbage else (0, 0, 0)),
                pool.nbytes,
                pool.used_nbytes,
                pool.blocks_out,
                alive_ns,
            )

    # -- control -----------------------------------------------------------------------------------------------------

    def _heed(self) -> None:
        # Nobody but the bell may have called: looking costs as much as a message.
        if self._selector.was_called or self.own.fatal is not None:
            self.obey()

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
