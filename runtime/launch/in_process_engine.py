"""A graph in one process: one worker with all actors, over the same lanes, without a supervisor and its processes.

It is driven: it works while somebody waits for it, in the thread of whoever waits, so that a debugger, a profiler and
Ctrl-C find handlers there. Or, where a thread must not be held up by it, it has a thread of its own (`in_thread`), in
which all of its actors' code runs.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from ..actor.actor import Actor
from ..actor.user_code import made
from ..clients import in_process_graphs
from ..control.channel import Assignment
from ..control.worker_line import Corrupt, Cut, Drain, Order, Report
from ..dataplane.descriptor_channel import Channel, Link, Listener, Unheard
from ..dataplane.peers import Peer
from ..dataplane.requests import Requests
from ..dataplane.switchboard import Switchboard
from ..graph.compiled import Routing
from ..host.inherited import fill_standard_descriptors, inherited_sockets
from ..placement.plan import Plan, WorkerPlan
from ..postmortem.stopped import CUT_WITHIN_S, Stopped
from ..spec import ActorSpec, GraphSpec
from ..worker.forked_child import Partition
from ..worker.supervisor_line import OwnLine
from ..worker.worker import Worker
from .driver import Driver
from .kept_exceptions import Failures

Codes = Mapping[str, tuple[Any, dict[str, Any]]]  # by actor: its class or function, and its arguments

WORKER = "here"
_DRAIN_STEP_S = 0.005


class _OwnLink(Link):
    """Asks a switchboard of the same process."""

    def __init__(self, channel: Channel, listener: Listener, serve: Callable[[], None]) -> None:
        super().__init__(channel, listener)
        self._serve = serve

    def _await(self, token: int) -> dict[str, Any]:
        while token not in self._answers:
            self._serve()
            self.channel.flush()
            self.pump()
        return self._answers.pop(token)


class InProcessEngine:
    """Built, started and closed by one thread; clients may wait in any."""

    def __init__(self, name: str, spec: GraphSpec, codes: Codes, *, in_thread: bool) -> None:
        fill_standard_descriptors()
        self.name = name
        self.is_driven = not in_thread
        self.routing = Routing(spec)
        self.failures = Failures()
        self.stopped = Stopped()
        self._codes = codes
        self.serving = threading.RLock()  # guards the switchboard
        instances = tuple(each for actor in spec.actors for each in actor.instances())
        cores = tuple(sorted(os.sched_getaffinity(0)))
        self._planned = WorkerPlan(WORKER, instances, cores, len(cores), spin=False, reason="all in one process")
        self.board = Switchboard(self.routing, Plan(name, "this process", (self._planned,)), inherited_sockets())
        self._requests = Requests(self.board)
        self._line = OwnLine(self._reported)
        self.driver = Driver(name, self.failures, self.serve, self._part_with_clients, in_thread=in_thread)
        self.wait, self.settle = self.driver.wait, self.driver.settle
        self.refuse_own_thread, self.explain = self.driver.refuse_own_thread, self.failures.explain

    # -- life --------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Makes the actors and runs their `on_start`. Raises what they raise, and LoadError."""
        try:
            in_process_graphs.enter(self)
            self.driver.do(self._start)
        except BaseException:
            in_process_graphs.leave(self)
            self._close()
            raise

    def _start(self) -> None:
        peer, planned = self.board.home_of(self._planned.instances[0]), self._planned
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        peer.channel = Channel(far)
        link = _OwnLink(Channel(near), Unheard(), self.serve)
        instances, cores = list(planned.instances), list(planned.cores)
        assignment = Assignment(peer.number, instances, cores, planned.threads, planned.spin)
        worker = Worker(WORKER, link, self._line, self.routing.spec, assignment, self._made)
        self.driver.worker = worker
        self._partition = Partition(worker)
        worker.caller.explain = self.failures.explain
        worker.own.died = self.failures.end_program
        worker.build()
        self.driver.listen()
        for cell in worker.cells.values():
            for handler in filter(None, map(cell.handler, self.routing.number.values())):
                self.failures.guard(cell.instance, handler)
        worker.start_actors()
        self.driver.begin()

    def _made(self, spec: ActorSpec) -> Actor:
        code, arguments = self._codes[spec.name]
        return made(spec.name, code, arguments)

    @property
    def actors(self) -> dict[str, Actor]:
        """The instances by name, as they are."""
        worker = self.driver.worker
        return {name: cell.actor for name, cell in worker.cells.items()} if worker is not None else {}

    def stop(self, drain_timeout_s: float) -> None:
        """Drains, runs `on_stop`, and gives everything back. Nothing where that was done."""
        if self.driver.has_ended:
            return
        try:
            if self.driver.worker is not None:
                self.driver.do(lambda: self._stop(drain_timeout_s))
        finally:
            in_process_graphs.leave(self)
            self._close()

    def _stop(self, drain_timeout_s: float) -> None:
        worker = self.driver.live
        if not drain_timeout_s:
            self.stopped = Stopped(self.board.unfinished())
        elif not self._done(Drain(), drain_timeout_s):
            self.stopped = Stopped(self.board.unfinished())
            self._done(Cut(), CUT_WITHIN_S)
        worker.own.thread = threading.get_ident()
        worker.stop()
        worker.run()

    def _done(self, order: Order, within_s: float) -> bool:
        """Lets the worker do as it is told until nothing is in flight; False if that took too long."""
        self._line.tell(order)
        until, idle = time.monotonic() + within_s, 0
        while idle < 3 and time.monotonic() < until:
            self.driver.turn(_DRAIN_STEP_S)
            idle = idle + 1 if self.board.is_idle() else 0
        return idle == 3

    def _close(self) -> None:
        self.driver.do(self._dismantle)
        self.driver.close()
        with self.serving:
            self.board.departures.close()
            self.board.close()
            for held in (self.board.peers, self.board.lanes, self.board.slabs):
                held.clear()  # clients that were closed still know this graph
        self._line.close()
        self.failures.forget()

    def _dismantle(self) -> None:
        worker = self.driver.end()
        if worker is not None:
            worker.unwind()
            worker.finish(worker.loop.shutdown_default_executor())
            worker.close()

    # -- clients -----------------------------------------------------------------------------------------------------

    def link(self, listener: Listener) -> Link:
        """A new client's line to the switchboard. Raises Disconnected where the graph has ended."""
        with self.serving:
            self.driver.live  # noqa: B018
            near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self.board.add_client(Channel(far))
        return _OwnLink(Channel(near), listener, self.serve)

    def part(self) -> None:
        """A client has gone: what it had is given back, here and by the worker."""
        self.serve()
        self.driver.settle()
        with self.serving:
            self.board.departures.see_off()

    def serve(self) -> None:
        """Answers what was asked of the switchboard, and notices who has gone."""
        with self.serving:
            for peer in list(self.board.peers.values()):
                if peer.channel is not None and not self._requests.serve(peer, peer.channel) and not peer.instances:
                    self._left(peer)

    def _left(self, client: Peer) -> None:
        client.hang_up()
        self.board.departures.client_left(client)

    def _reported(self, report: Report) -> None:
        if isinstance(report, Corrupt):
            with self.serving:
                peer = self.board.peers.get(report.client)
                if peer is not None and not peer.instances:
                    self.board.departures.turned_out(peer)

    def _part_with_clients(self) -> None:
        with self.serving:
            for peer in self.board.clients():
                self._left(peer)
