"""The parent of all workers: spawns, watches, restarts and drains them. It imports no user code.

`main` starts its process. A socket ties it to whoever runs the graph: at its end it drains and stops.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
import time

import zmq

from ...shm import fence
from ..control import worker_line as reports
from ..control.owner import EVENTS, JOBS, Event, GraphFailed, GraphReady, GraphStopped, RunGraph
from ..control.worker_line import Cut, Drain
from ..dataplane.descriptor_server import DescriptorServer
from ..dataplane.switchboard import Switchboard
from ..errors import SlabwireError, StartError
from ..graph.compiled import Routing
from ..host.cpu_load import demand_counts
from ..host.descriptors import REMEDY, require_for_graph
from ..host.frames import FrameReader, write_frame
from ..host.run_directory import RunDirectory
from ..host.topology import Topology
from ..logs.log_format import configure_logging
from ..logs.log_watch import LogWatch
from ..placement.plan import plan
from ..postmortem.stopped import CUT_WITHIN_S, UNCLEAN, Stopped
from ..spec import GraphSpec, graph_from_plain
from .balancer import Balancer
from .control_api import ControlApi
from .control_server import ControlServer
from .fork_server import Spawner
from .lease_map import LeaseMap
from .mover import Mover
from .renewal import Renewals
from .running_graph import RunningGraph
from .workforce import Workforce

logger = logging.getLogger("slabwire")

# What workers get to run their on_stop and leave, after the draining.
STOP_WITHIN_S = 5.0
_POLL_DRAIN_S = 0.005


class Supervisor:
    """One running graph. Everything happens on one asyncio loop, in the main thread."""

    def __init__(self, spec: GraphSpec, job: RunGraph, owner: socket.socket, spawner: Spawner) -> None:
        name = job.name or spec.name
        if job.rebalance:
            demand_counts()  # before anything is made
        topology = Topology.read()
        switchboard = Switchboard(Routing(spec), plan(spec, topology), job.inherited)
        directory = RunDirectory(name)
        self._server = ControlServer(f"ipc://{directory.control}", lambda verb: self._api.serve(verb), self._report)
        self._descriptors = DescriptorServer(
            directory.local, switchboard, lambda: self.graph.state not in ("draining", "stopped")
        )
        workforce = Workforce(
            spec,
            switchboard,
            self._descriptors,
            directory,
            spawner,
            [job.listen] if job.listen else [],
            lambda: self.graph.state,
            self._give_up,
        )
        self.graph = RunningGraph(
            name,
            spec,
            topology,
            directory,
            switchboard,
            workforce,
            spawner,
            self._server.tell,
            job.drain_timeout_s,
        )
        self.failure: str | None = None
        self._owner = owner
        self._mover = Mover(self.graph)
        self._renewals = Renewals(self.graph)
        self._balancer = Balancer(self.graph, self._mover) if job.rebalance else None
        self._leases = LeaseMap(self.graph)
        self._api = ControlApi(
            self.graph, self.stop, self.stopped, self._mover, self._renewals, self._balancer, self._leases
        )
        self._stopped = asyncio.Event()
        self._stopping: asyncio.Task[None] | None = None
        self._opening: asyncio.Task[None] | None = None
        self._cut: dict[str, int] = {}

    # -- life --------------------------------------------------------------------------------------------------------

    async def run(self) -> int:
        """Runs the graph to its end; returns the exit status: 0 after a stop, UNCLEAN after one that cut work off, 1
        when it could not start or gave up.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        loop.add_reader(self._owner, self._hear_owner)
        self._descriptors.open()
        self.graph.workforce.start()
        watches = [self.graph.workforce.watch(), LogWatch(self.graph.directory.path / "logs").watch()]
        if self._balancer is not None:
            watches.append(self._balancer.watch())
        tasks = [loop.create_task(each) for each in watches]
        await self._stopped.wait()
        for task in tasks:
            task.cancel()
        await self._server.answered()
        self._close()
        return 1 if self.failure else 0 if self.outcome.is_clean else UNCLEAN

    def _give_up(self, reason: str, detail: str = "") -> None:
        logger.error("the graph gives up: %s", reason)
        if self.failure is None:
            self.failure = reason
            self._tell_owner(GraphFailed(reason, detail))
        self.stop(drain=False)

    # -- the end -----------------------------------------------------------------------------------------------------

    def stop(self, *, drain: bool = True, drain_timeout_s: float | None = None) -> None:
        """Drains and stops; asked a second time, stops now."""
        if self._stopping is not None:
            drain = False
            self._stopping.cancel()
        timeout_s = self.graph.drain_timeout_s if drain_timeout_s is None else drain_timeout_s
        self._stopping = asyncio.get_running_loop().create_task(self._end(timeout_s if drain else None))

    async def _end(self, drain_timeout_s: float | None) -> None:
        was_ready, is_done = self.graph.state == "ready", False
        self.graph.state = "draining"
        if drain_timeout_s and was_ready:
            is_done = await self._drain(drain_timeout_s) or await self._cut_off(drain_timeout_s)
        elif not self._cut:
            self._cut = self.graph.switchboard.unfinished(self.graph.workforce.gone())
        await self.graph.gateway.close(within_s=STOP_WITHIN_S if drain_timeout_s is not None else 0.0)
        await self._stop_workers(STOP_WITHIN_S if drain_timeout_s else 0.0, is_done=is_done)
        self.graph.state = "stopped"
        self._tell_owner(GraphStopped(**self.outcome.to_plain()))
        self._stopped.set()

    @property
    def outcome(self) -> Stopped:
        """How it has stopped, once it has."""
        return Stopped(self._cut, self.graph.workforce.failed_to_stop)

    async def stopped(self) -> Stopped:
        """Waits until it has, and says how."""
        await self._stopped.wait()
        return self.outcome

    async def _drain(self, timeout_s: float) -> bool:
        """Takes no new requests and lets those in flight end; whether they did."""
        logger.info("draining, for at most %.1f s", timeout_s)
        for name in self.graph.workers:
            self._server.tell(name, Drain())
        return await self._wait_idle(time.monotonic() + timeout_s, looks=3)

    async def _cut_off(self, timeout_s: float) -> bool:
        """Ends what is in flight with errors to its callers; whether all workers have."""
        self._cut = self.graph.switchboard.unfinished(self.graph.workforce.gone())
        logger.warning(
            "after %g s %s", timeout_s, Stopped(self._cut).text(self.graph.name) or "work was still in flight"
        )
        for name in self.graph.workers:
            self._server.tell(name, Cut())
        return await self._wait_idle(time.monotonic() + CUT_WITHIN_S, looks=3)

    async def _wait_idle(self, until_s: float, *, looks: int) -> bool:
        """Until nothing was in flight at so many looks, one after the other; False if that took too long."""
        idle = 0
        while time.monotonic() < until_s:
            idle = idle + 1 if self.graph.switchboard.is_idle(self.graph.workforce.gone()) else 0
            if idle == looks:
                return True
            await asyncio.sleep(_POLL_DRAIN_S)
        return False

    async def _stop_workers(self, within_s: float, *, is_done: bool) -> None:
        """Who sends stops before whoever it sends to, who still handles what an on_stop has sent."""
        until_s = time.monotonic() + within_s
        for wave in self.graph.workforce.waves:
            if is_done and within_s:
                is_done = await self._wait_idle(until_s, looks=1)
            self.graph.workforce.stop(wave, self._server.tell if within_s else None)
            # Half of what is left: whoever hangs must not take the others' time to stop.
            await self.graph.workforce.wait_left(wave, (time.monotonic() + until_s) / 2)
        await self.graph.workforce.end(until_s)

    def _close(self) -> None:
        self._descriptors.close()
        self._server.close()
        self.graph.spawner.close()
        self.graph.switchboard.close()
        self.graph.directory.remove()

    # -- the owner ---------------------------------------------------------------------------------------------------

    def _hear_owner(self) -> None:
        """The process that started this graph: its orders, and its end."""
        try:
            received = self._owner.recv(64)
        except OSError:
            received = b""
        if not received:
            asyncio.get_running_loop().remove_reader(self._owner)
            if self._stopping is None:
                self.stop()
        elif b"k" in received:
            self.stop(drain=False)
        elif b"s" in received:
            self.stop()

    def _tell_owner(self, event: Event) -> None:
        with contextlib.suppress(OSError):
            write_frame(self._owner, EVENTS.document(event))

    # -- control -----------------------------------------------------------------------------------------------------

    def _report(self, name: str, pid: int, report: reports.Report) -> None:
        """What a worker says over ZeroMQ."""
        worker = self.graph.workers.get(name)
        if worker is None or pid != worker.pid:
            return  # a late word of one that was replaced
        match report:
            case reports.Ready():
                worker.became_ready()
                self._mover.settle(worker)
                self._became_ready()
                if self.graph.state == "draining":
                    self._server.tell(name, Drain())
            case reports.Stopped():
                worker.has_left()
            case reports.Failed(error, detail, code):
                worker.has_failed(error, detail, code)
            case reports.Drained():
                self._renewals.heard(name, report)
            case reports.Dead():
                self.graph.dead_letters.append({"unix_s": time.time(), **report._asdict()})
                self.graph.workforce.tree.forgive(name)  # what it died of is out of the way
            case reports.Holdings():
                self._leases.heard(name, report)
            case reports.Corrupt(client):
                self._descriptors.turn_out(client)

    def _became_ready(self) -> None:
        if self.graph.state != "starting" or not all(worker.is_ready for worker in self.graph.workers.values()):
            return
        if not self.graph.gateway.listen:
            self._tell_ready()
        elif self._opening is None:
            self._opening = asyncio.get_running_loop().create_task(self._open_gateway())

    async def _open_gateway(self) -> None:
        try:
            await self.graph.gateway.open()
        except SlabwireError as error:
            self._give_up(str(error))
        except OSError as error:  # no process for it, or no descriptor
            self._give_up(f"the gateway could not be started: {error}")
        else:
            self._tell_ready()

    def _tell_ready(self) -> None:
        if self.graph.state == "starting":
            self.graph.state = "ready"
            logger.info("%s is ready", self.graph.name)
            self._tell_owner(GraphReady(self.graph.name, str(self.graph.directory.path)))


def supervise(owner: socket.socket, spawner: Spawner) -> int:
    """Runs the graph that the owner asks for to its end; the process's exit status."""
    configure_logging()
    fence.register()
    try:
        job = JOBS.read(FrameReader(owner).read())
        owner.setblocking(False)
        spec = graph_from_plain(job.spec)
        require_for_graph(spec, listens=bool(job.listen))
        return asyncio.run(_run(spec, job, owner, spawner))
    except (SlabwireError, OSError, zmq.ZMQError) as error:
        return give_up(owner, error)


async def _run(spec: GraphSpec, job: RunGraph, owner: socket.socket, spawner: Spawner) -> int:
    supervisor = Supervisor(spec, job, owner, spawner)
    _log_to(supervisor.graph.directory)
    return await supervisor.run()


def _log_to(directory: RunDirectory) -> None:
    """From here on everything that is printed goes to the supervisor's log."""
    log = directory.open_log("supervisor")
    for number in (1, 2):
        os.dup2(log, number)
    os.close(log)


def give_up(owner: socket.socket, error: Exception) -> int:
    """The exit status, after the owner was told."""
    if not isinstance(error, SlabwireError):
        is_scarce = getattr(error, "errno", None) in (errno.EMFILE, errno.ENFILE)
        remedy = f"; {REMEDY}" if is_scarce else ""
        error = StartError(f"the supervisor cannot go on: {error}{remedy}")
    with contextlib.suppress(OSError):
        write_frame(owner, EVENTS.document(GraphFailed(str(error), code=error.code)))
    return 1
