"""The parent of all workers: spawns, watches, restarts and drains them. It imports no user code.

`supervisor_process` is its main program. A socket ties it to whoever runs the graph: at its end it drains and stops.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import time
from typing import Any

from .deadletters import DeadLetters
from .doorkeeper import Doorkeeper
from .errors import SlabwireError
from .frames import write_frame
from .inquiry import Inquiry
from .mover import Mover
from .placement import Plan, plan
from .process import WorkerProcess
from .reception import Reception
from .routing import Routing
from .rundir import RunDirectory
from .server import ControlServer
from .spawner import Spawner
from .spec import GraphSpec
from .switchboard import Switchboard
from .topology import Topology
from .verbs import serve

logger = logging.getLogger("slabwire")

# How often hung workers are looked for. Deaths are noticed at once, by pidfd.
LOOK_EVERY_S = 0.5
# What workers get to run their on_stop and leave, after the draining.
STOP_WITHIN_S = 5.0
_POLL_DRAIN_S = 0.005

# No descriptors, processes or memory for it: some may come back.
_RESPAWN_AGAIN_S = 1.0


class Supervisor:
    """One running graph. Everything happens on one asyncio loop, in the main thread."""

    def __init__(self, spec: GraphSpec, options: dict[str, Any], owner: socket.socket, spawner: Spawner) -> None:
        self.spec = spec
        self.name = options.get("name") or spec.name
        self.drain_timeout_s = float(options["drain_timeout_s"])
        self.state = "starting"
        self.started_unix_s = time.time()
        self.directory = RunDirectory(self.name)
        self.topology = Topology.read()
        self.plan: Plan = plan(spec, self.topology)
        self.switchboard = Switchboard(Routing(spec), self.plan)
        self.workers: dict[str, WorkerProcess] = {}
        self.dead_letters = DeadLetters()
        self.failure: str | None = None
        self._owner = owner
        self._spawner = spawner
        self._server = ControlServer(f"ipc://{self.directory.control}", self._serve, self._report)
        self.tell = self._server.tell
        self.inquiry = Inquiry(self.tell)
        self.mover = Mover(self)
        self._reception = Reception(self.directory.local, self.switchboard, self._takes_clients)
        self._stopped = asyncio.Event()
        self._stopping: asyncio.Task[None] | None = None
        self._opening: asyncio.Task[None] | None = None
        listen = options.get("listen")
        self.doorkeeper = Doorkeeper(self.name, self.directory, [listen] if listen else [])

    # -- life --------------------------------------------------------------------------------------------------------

    async def run(self) -> int:
        """Runs the graph to its end; returns the exit status: 0 after a stop, 1 when it could not start or gave up."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        loop.add_reader(self._owner, self._hear_owner)
        self._reception.open()
        self._server.attach(loop)
        self._spawn_all()
        watch = loop.create_task(self._watch())
        await self._stopped.wait()
        watch.cancel()
        self._close()
        return 1 if self.failure else 0

    def _spawn_all(self) -> None:
        for planned in self.plan.workers:
            party = self.switchboard.home_of(planned.instances[0])
            actors = [self.spec.actor(self.switchboard.routing.actor_of[each]) for each in planned.instances]
            worker = WorkerProcess(planned, party, actors, self.directory, self._spawner, self._exited)
            self.workers[planned.name] = worker
            self._spawn(worker)

    def _spawn(self, worker: WorkerProcess) -> None:
        channel = worker.spawn(f"ipc://{self.directory.control}")
        self._reception.attach(worker.party, channel)

    def _exited(self, worker: WorkerProcess) -> None:
        """A worker has died, or has ended as it was told."""
        self._reception.detach(worker.party)
        self.switchboard.wake_neighbours(worker.party)
        if self.state in ("draining", "stopped") and worker.told_to_stop:
            return
        if self.state == "starting" and worker.error is not None:
            self._give_up(f"{worker.name} could not start: {worker.error}", worker.detail)
            return
        delay_s = worker.restart_delay_s(time.monotonic())
        if delay_s is not None:
            logger.warning("%s: %s; it is started again", worker.name, worker.last_exit)
            asyncio.get_running_loop().call_later(delay_s, self._respawn, worker)
        elif worker.policy.gave_up:
            often, within_s = worker.policy.intensity + 1, worker.policy.window_s
            self._give_up(f"{worker.name} died {often} times within {within_s:.0f} s: {worker.why()}")
        else:
            if self.state == "starting":
                self._give_up(f"{worker.name} could not start: {worker.why()}", worker.detail)
                return
            end, restart = worker.last_exit, worker.policy.restart
            logger.info("%s ended (%s) and is not started again: restart=%r", worker.name, end, restart)

    def renew(self, worker: WorkerProcess) -> None:
        """Ends a worker so that a successor takes over, or starts one that has ended for good."""
        if worker.is_alive:
            worker.renew()
        else:
            self._respawn(worker)

    def _respawn(self, worker: WorkerProcess) -> None:
        if self.state != "stopped" and not worker.is_alive and not worker.told_to_stop:
            try:
                self._spawn(worker)
            except OSError as error:
                logger.error(
                    "%s cannot be started now (%s); tried again in %.0f s", worker.name, error, _RESPAWN_AGAIN_S
                )
                asyncio.get_running_loop().call_later(_RESPAWN_AGAIN_S, self._respawn, worker)
                return
            worker.restarts += 1

    def _give_up(self, reason: str, detail: str = "") -> None:
        logger.error("the graph gives up: %s", reason)
        if self.failure is None:
            self.failure = reason
            self._tell_owner({"event": "failed", "error": reason, "detail": detail})
        self.stop(drain=False)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            for worker in self.workers.values():
                stats = self.switchboard.worker_stats(worker.party)
                ignores_input = self.switchboard.ignores_input(worker.party)
                worker.end_if_hung(stats.get("alive_ns", 0), stats.get("parks", 0), ignores_input=ignores_input)

    # -- the end -----------------------------------------------------------------------------------------------------

    def stop(self, *, drain: bool = True, drain_timeout_s: float | None = None) -> None:
        """Drains and stops; asked a second time, stops now."""
        if self._stopping is not None:
            drain = False
            self._stopping.cancel()
        timeout_s = self.drain_timeout_s if drain_timeout_s is None else drain_timeout_s
        self._stopping = asyncio.get_running_loop().create_task(self._end(timeout_s if drain else None))

    async def _end(self, drain_timeout_s: float | None) -> None:
        was_ready = self.state == "ready"
        self.state = "draining"
        if drain_timeout_s and was_ready:
            await self._drain(drain_timeout_s)
        await self.doorkeeper.close(within_s=STOP_WITHIN_S if drain_timeout_s is not None else 0.0)
        await self._stop_workers(within_s=STOP_WITHIN_S if drain_timeout_s else 0.0)
        self.state = "stopped"
        self._tell_owner({"event": "stopped"})
        self._stopped.set()

    async def _drain(self, timeout_s: float) -> None:
        """Takes no new requests and lets those in flight end."""
        logger.info("draining, for at most %.1f s", timeout_s)
        for worker in self.workers.values():
            self._server.tell(worker.name, {"verb": "drain"})
        until = time.monotonic() + timeout_s
        idle = 0
        while idle < 3 and time.monotonic() < until:
            idle = idle + 1 if self.switchboard.is_idle() else 0
            await asyncio.sleep(_POLL_DRAIN_S)
        if idle < 3:
            logger.warning("work was still in flight after %.1f s; it is cut off", timeout_s)

    async def _stop_workers(self, *, within_s: float) -> None:
        """In reverse of the order in which they were added to the graph."""
        for worker in reversed(self.workers.values()):
            worker.told_to_stop = True
            if worker.is_ready and within_s:
                self._server.tell(worker.name, {"verb": "stop"})
            else:
                worker.kill()
        until = time.monotonic() + within_s
        for worker in reversed(self.workers.values()):
            await worker.wait_ended(max(0.0, until - time.monotonic()))
        for worker in self.workers.values():
            worker.kill()
            await worker.wait_ended(None)

    def _takes_clients(self) -> bool:
        return self.state not in ("draining", "stopped")

    def _close(self) -> None:
        self._reception.close()
        self._server.close()
        self._spawner.close()
        self.switchboard.close()
        self.directory.remove()

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

    def _tell_owner(self, event: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):
            write_frame(self._owner, event)

    # -- control -----------------------------------------------------------------------------------------------------

    def _report(self, worker_name: str, message: dict[str, Any]) -> None:
        """What a worker says over ZeroMQ."""
        worker = self.workers.get(worker_name)
        if worker is None or message.get("pid") != worker.pid:
            return  # a late word of one that was replaced
        verb = message["verb"]
        if verb == "ready":
            worker.became_ready()
            self.mover.settle(worker)
            self._became_ready()
            if self.state == "draining":
                self._server.tell(worker_name, {"verb": "drain"})
        elif verb == "failed":
            worker.error, worker.detail = message["error"], message.get("detail", "")
        elif verb == "dead":
            self.dead_letters.add(message)
            worker.policy.forgive()  # what it died of is out of the way
        elif verb == "answer":
            self.inquiry.heard(worker_name, message)
        elif verb == "corrupt":
            self._reception.turn_out(message["client"])

    def _became_ready(self) -> None:
        if self.state != "starting" or not all(worker.is_ready for worker in self.workers.values()):
            return
        if not self.doorkeeper.listen:
            self._tell_ready()
        elif self._opening is None:
            self._opening = asyncio.get_running_loop().create_task(self._open_gateway())

    async def _open_gateway(self) -> None:
        try:
            await self.doorkeeper.open()
        except SlabwireError as error:
            self._give_up(str(error))
        else:
            self._tell_ready()

    def _tell_ready(self) -> None:
        if self.state == "starting":
            self.state = "ready"
            logger.info("%s is ready", self.name)
            self._tell_owner({"event": "ready", "name": self.name, "directory": str(self.directory.path)})

    async def _serve(self, request: dict[str, Any]) -> dict[str, Any]:
        return await serve(self, request)


async def run(spec: GraphSpec, options: dict[str, Any], owner: socket.socket, spawner: Spawner) -> int:
    """Runs a graph to its end; the process's exit status."""
    supervisor = Supervisor(spec, options, owner, spawner)
    _log_to(supervisor.directory)
    return await supervisor.run()


def _log_to(directory: RunDirectory) -> None:
    """From here on everything that is printed goes to the supervisor's log."""
    log = os.open(directory.log("supervisor"), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    for number in (1, 2):
        os.dup2(log, number)
    os.close(log)
