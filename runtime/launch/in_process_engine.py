"""A graph in one process: one worker with all actors, over the same lanes, without a supervisor and its processes.

It is driven: it works while somebody waits for it, in the thread of whoever waits, so that a debugger, a profiler and
Ctrl-C find handlers there. Or, where a thread must not be held up by it, it has a thread of its own (`in_thread`), in
which all of its actors' code runs.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

from ..actor.actor import Actor
from ..actor.user_code import made
from ..cell.kept_exceptions import Failures
from ..clients import in_process_graphs as here
from ..dataplane.descriptor_channel import Channel, close_all
from ..dataplane.descriptor_client import Heard, Link
from ..dataplane.idleness import is_idle, unfinished
from ..dataplane.peers import Party
from ..dataplane.switchboard import Switchboard
from ..error_text import traceback_of
from ..errors import Disconnected, ProtocolError, SlabwireError
from ..graph.compiled import Routing
from ..host.attempt import attempt
from ..host.inherited import fill_standard_descriptors
from ..host.interrupts import Interrupts
from ..message.capacities import FIRST_CLIENT
from ..placement.plan import Plan, WorkerPlan
from ..postmortem.stopped import CUT_WITHIN_S, Stopped
from ..spec import ActorSpec, GraphSpec
from ..worker.control_line import OwnOrders
from ..worker.forked_child import Partition
from ..worker.worker import Worker

logger = logging.getLogger("slabwire")

T = TypeVar("T")
Codes = Mapping[str, tuple[Any, dict[str, Any]]]  # by actor: its class or function, and its arguments

WORKER = "here"
# While another thread drives: how often to look whether it still does.
_LOOK_EVERY_S = 0.02
_DRAIN_STEP_S = 0.005
# Turns of work that is never done, such as a stream that nobody stops.
_MOST_AT_ONCE = 100


class _OwnLink(Link):
    """Asks a switchboard of the same process."""

    def __init__(self, channel: Channel, heard: Heard, serve: Callable[[], None]) -> None:
        super().__init__(channel, heard)
        self._serve = serve

    def _await(self, token: int) -> dict[str, Any]:
        while token not in self._answers:
            self._serve()
            self.channel.flush()
            self.pump()
        return self._answers.pop(token)


class Room:
    """Built, started and closed by one thread; clients may wait in any."""

    def __init__(self, name: str, spec: GraphSpec, codes: Codes, *, in_thread: bool) -> None:
        fill_standard_descriptors()
        self.name = name
        self.is_driven = not in_thread
        self.routing = Routing(spec)
        self.dead: list[dict[str, Any]] = []
        self.failures = Failures()
        self.stopped = Stopped()
        self._codes = codes
        self.serving = threading.RLock()  # guards the switchboard
        self._working = threading.Lock()  # held by the thread that takes turns
        self._worker_thread = 0
        self._jobs: SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = SimpleQueue()
        self._job_bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._interrupts = Interrupts(self._job_bell)
        self._is_up = self._ended = False
        instances = tuple(each for actor in spec.actors for each in actor.instances())
        cores = tuple(sorted(os.sched_getaffinity(0)))
        planned = WorkerPlan(WORKER, instances, cores, len(cores), spin=False, reason="all in one process")
        self.board = Switchboard(self.routing, Plan(name, "this process", (planned,)))
        self.orders = OwnOrders(self._reported)
        self.worker: Worker | None = None
        self._thread: threading.Thread | None = None
        if in_thread:
            self._thread = threading.Thread(target=self._run, name=f"slabwire {name}", daemon=True)
            self._thread.start()

    # -- life --------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Makes the actors and runs their `on_start`. Raises what they raise, and LoadError."""
        try:
            here.enter(self)
            self.do(self._start)
        except BaseException:
            here.leave(self)
            self._close()
            raise

    def _start(self) -> None:
        (party,) = (each for each in self.board.parties.values() if each.instances)
        planned = self.board.plan.workers[0]
        plan = {"endpoint": party.number, "instances": list(planned.instances), "cores": list(planned.cores)}
        link = self._link_of(party, _close_unheard)
        settings = {**plan, "threads": planned.threads, "spin": False, "graph": ""}  # no supervisor can be asked
        self.worker = Worker(WORKER, link, self.orders, self.routing.spec, settings, self._made)
        self._partition = Partition(self.worker)
        self.worker.caller.explain = self.failures.explain
        self.worker.own.died = self.failures.end_program
        self.worker.build()
        self.worker.loop.add_reader(self._job_bell, self.worker.loop.stop)
        for cell in self.worker.cells.values():
            for handler in filter(None, map(cell.handler, self.routing.number.values())):
                self.failures.guard(cell.instance, handler)
        self.worker.start_actors()
        self._is_up = True

    def _made(self, spec: ActorSpec) -> Actor:
        code, arguments = self._codes[spec.name]
        return made(spec.name, code, arguments)

    @property
    def actors(self) -> dict[str, Actor]:
        """The instances by name, as they are."""
        return {name: cell.actor for name, cell in self.worker.cells.items()} if self.worker is not None else {}

    def stop(self, drain_timeout_s: float) -> None:
        """Drains, runs `on_stop`, and gives everything back. Nothing where that was done."""
        if self._ended:
            return
        try:
            if self.worker is not None:
                self.do(lambda: self._stop(drain_timeout_s))
        finally:
            here.leave(self)
            self._close()

    def _stop(self, drain_timeout_s: float) -> None:
        worker = self._live
        if not drain_timeout_s:
            self.stopped = Stopped(unfinished(self.board))
        elif not self._done("drain", drain_timeout_s):
            self.stopped = Stopped(unfinished(self.board))
            self._done("cut", CUT_WITHIN_S)
        worker.own.thread = threading.get_ident()
        worker.stop()
        worker.run()

    def _done(self, order: str, within_s: float) -> bool:
        """Lets the worker do as it is told until nothing is in flight; False if that took too long."""
        self.orders.tell({"verb": order})
        until, idle = time.monotonic() + within_s, 0
        while idle < 3 and time.monotonic() < until:
            self._turn(_DRAIN_STEP_S)
            idle = idle + 1 if is_idle(self.board) else 0
        return idle == 3

    def _close(self) -> None:
        self.do(self._dismantle)
        if self._thread is not None:
            self._thread.join()
        os.close(self._job_bell)
        with self.serving:
            self.board.close()
            for held in (self.board.parties, self.board.lines, self.board.slabs):
                held.clear()  # clients that were closed still know this graph
        self.orders.close()
        self.failures.forget()

    def _dismantle(self) -> None:
        self._is_up, self._ended = False, True
        worker, self.worker = self.worker, None
        if worker is not None:
            worker.unwind()
            worker.finish(worker.loop.shutdown_default_executor())
            worker.close()

    @property
    def _live(self) -> Worker:
        if self.worker is None:
            raise Disconnected(f"graph {self.name!r} has ended")
        return self.worker

    # -- turns -------------------------------------------------------------------------------------------------------

    def do(self, action: Callable[[], T]) -> T:
        """Runs it where the actors' code runs. Raises what it raises."""
        if self._thread is None:
            with self._turns_taken(), self._interrupts:
                return action()
        future: Future[T] = Future()
        self._jobs.put((action, future))
        self._wake()
        return future.result()

    def wait(self, is_over: Callable[[], Any], longest_s: float | None, bell: int = -1) -> None:
        """Drives the graph until `is_over()`, the time has passed, or `bell` is readable. Raises what a handler raised
        that was to end the program: KeyboardInterrupt, say.
        """
        until = None if longest_s is None else time.monotonic() + longest_s
        rung = select.poll()
        if bell >= 0:
            rung.register(bell, select.POLLIN)
        while not (is_over() or (bell >= 0 and rung.poll(0))):
            left_s = None if until is None else until - time.monotonic()
            if left_s is not None and left_s <= 0:
                return
            self.refuse_own_thread()
            if self._thread is not None:
                rung.poll(1000 * min(_LOOK_EVERY_S, _LOOK_EVERY_S if left_s is None else left_s))
                continue
            got: list[bool] = []
            try:
                got += attempt(self._working, _LOOK_EVERY_S)
                if got[0]:  # else another thread drives
                    self._worker_thread = threading.get_ident()
                    self._turn(left_s, bell)
            finally:
                if True in got:
                    self._worker_thread = 0
                    self._working.release()

    def settle(self) -> None:
        """Lets a driven graph do what it can at once, unless somebody drives it already."""
        if self._thread is not None or self.worker is None:
            return
        got: list[bool] = []
        try:
            got += attempt(self._working)
            if got[0]:
                self._worker_thread = threading.get_ident()
                with self._interrupts:
                    self._live.obey()
                for _ in range(_MOST_AT_ONCE):
                    if not self._turn(0.0):
                        break
        finally:
            if True in got:
                self._worker_thread = 0
                self._working.release()

    @contextlib.contextmanager
    def _turns_taken(self) -> Any:
        self.refuse_own_thread()
        with self._working:
            self._worker_thread = threading.get_ident()
            try:
                yield
            finally:
                self._worker_thread = 0

    def refuse_own_thread(self) -> None:
        """Raises SlabwireError in the thread that works for the graph: it would wait for itself."""
        if self._worker_thread == threading.get_ident():
            raise SlabwireError(
                f"a handler of graph {self.name!r} waits for its own graph, which runs in this thread; "
                "use `await self.call(...)` there, or run the graph in processes"
            )

    def _turn(self, longest_s: float | None, bell: int = -1) -> bool:
        """One turn of the worker, which sleeps for so long at most; True if it worked."""
        worker = self._live
        worker.own.thread = threading.get_ident()
        with self._interrupts:
            self.serve()
            loop = worker.loop
            if bell >= 0:
                loop.add_reader(bell, loop.stop)
            try:
                worked = worker.turn(longest_s)
            finally:
                if bell >= 0:
                    loop.remove_reader(bell)
        interrupt, self.failures.interrupt = self.failures.interrupt, None
        if interrupt is not None and self._thread is None:
            raise interrupt
        return worked

    def _run(self) -> None:
        """The thread of a graph that has one."""
        self._worker_thread = threading.get_ident()
        while not self._ended:
            if self._is_up and self._jobs.empty():
                try:
                    self._turn(None)
                except BaseException as error:
                    logger.error("graph %s cannot go on\n%s", self.name, traceback_of(error))
                    self._is_up = False
                    self._part_with_clients()
            else:
                job = self._jobs.get()
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(self._job_bell)
                _execute(*job)

    def _wake(self) -> None:
        """Rings for a job, until it is taken: the worker's own bell may be silenced by a sleep that ends just then."""
        os.eventfd_write(self._job_bell, 1)

    # -- clients -----------------------------------------------------------------------------------------------------

    def link(self, heard: Heard) -> Link:
        with self.serving:
            if self.worker is None:
                raise Disconnected(f"graph {self.name!r} has ended")
            near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self.board.add_client(Channel(far))
        return _OwnLink(Channel(near), heard, self.serve)

    def _link_of(self, party: Party, heard: Heard) -> Link:
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        party.channel = Channel(far)
        return _OwnLink(Channel(near), heard, self.serve)

    def part(self) -> None:
        """A client has gone: what it had is given back, here and by the worker."""
        self.serve()
        self.settle()
        with self.serving:
            self.board.departures.see_off()

    def serve(self) -> None:
        """Answers what was asked of the switchboard, and notices who has gone."""
        with self.serving:
            for party in list(self.board.parties.values()):
                self._serve(party)

    def _serve(self, party: Party) -> None:
        channel = party.channel
        if channel is None:
            return
        try:
            channel.flush()
            while party.channel is channel and (received := channel.receive()) is not None:
                message, descriptors = received
                close_all(descriptors)  # nobody has any to give
                self.board.answer(party, message)
        except (Disconnected, ProtocolError):
            if not party.instances:
                self._left(party)

    def _left(self, client: Party) -> None:
        if client.channel is not None:
            client.channel.close()
            client.channel = None
        self.board.departures.client_left(client)

    def explain(self, key: tuple[int, int], error: SlabwireError) -> None:
        self.failures.explain(key, error)

    def _reported(self, message: dict[str, Any]) -> None:
        if message["verb"] == "dead":
            self.dead.append(message)
        elif message["verb"] == "corrupt":
            with self.serving:
                party = self.board.parties.get(message["client"])
                if party is not None and party.number >= FIRST_CLIENT:
                    self.board.departures.turned_out(party)

    def _part_with_clients(self) -> None:
        with self.serving:
            for party in self.board.clients():
                self._left(party)


def _close_unheard(_message: dict[str, Any], descriptors: list[int]) -> None:
    close_all(descriptors)


def _execute(action: Callable[[], Any], future: Future[Any]) -> None:
    try:
        future.set_result(action())
    except BaseException as error:
        future.set_exception(error)
