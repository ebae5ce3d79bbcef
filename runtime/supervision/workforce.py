"""All children of a supervisor, workers and gateway: started in order, watched, restarted as the tree says, stopped."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterable, Sequence

from ..control.worker_line import Order, Stop
from ..dataplane.descriptor_server import DescriptorServer
from ..dataplane.switchboard import Switchboard
from ..graph.worker_order import start_order, stop_waves, targets_of
from ..host.oom_kills import kills_in_machine
from ..host.run_directory import RunDirectory
from ..postmortem.exit_reason import ExitReason
from ..spec import GraphSpec
from .crash_reporter import CrashReporter
from .fork_server import Spawner
from .gateway_handle import GatewayHandle
from .restart import LONGEST_DELAY_S
from .tree import Outcome, Tree, branches
from .worker_handle import WorkerHandle

logger = logging.getLogger("slabwire")

# How often hung workers are looked for. Deaths are noticed at once, by pidfd.
LOOK_EVERY_S = 0.5
# No descriptors, processes or memory for a worker: some may come back.
_SPAWN_AGAIN_S = 1.0

Tell = Callable[[str, Order], None]


class Workforce:
    """Everything on the supervisor's loop. `listen`: where the gateway listens beside its socket in the run directory.

    `state()` is the graph's, `give_up(reason, detail)` ends it.
    """

    def __init__(
        self,
        spec: GraphSpec,
        switchboard: Switchboard,
        descriptors: DescriptorServer,
        directory: RunDirectory,
        spawner: Spawner,
        listen: Sequence[str],
        state: Callable[[], str],
        give_up: Callable[[str, str], None],
    ) -> None:
        self._switchboard = switchboard
        self._descriptors = descriptors
        self._control = f"ipc://{directory.control}"
        self._state, self._give_up = state, give_up
        self._alarm: asyncio.TimerHandle | None = None
        routing = switchboard.routing
        self.workers: dict[str, WorkerHandle] = {}
        for planned in switchboard.plan.workers:
            actors = [spec.actor(routing.actor_of[each]) for each in planned.instances]
            peer = switchboard.home_of(planned.instances[0])
            self.workers[planned.name] = WorkerHandle(planned, peer, actors, directory, spawner, self._exited)
        workers_of = {
            actor: list(dict.fromkeys(switchboard.home_of(each).name for each in instances))
            for actor, instances in routing.instances.items()
        }
        targets = targets_of(spec, workers_of)
        order = start_order(targets)
        self.waves = stop_waves(order, targets)
        self.gateway = GatewayHandle(directory, listen, self._gateway_exited)
        restarts = {name: worker.restart for name, worker in self.workers.items()}
        restarts[self.gateway.name] = "permanent"
        self.tree = Tree([*order, self.gateway.name], restarts, branches(spec.groups, workers_of))
        self._order = order
        self._graph = directory.path.name
        self._ends: dict[str, str] = {}  # how each worker ended last
        self._crashes = CrashReporter(self._graph, switchboard, self.tree)
        self.failed_to_stop: dict[str, str] = {}  # how they ended, by worker

    # -- the beginning -----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Starts all workers at once, targets first. None waits for another: what is sent early lies in its lane."""
        for name in self._order:
            self._spawn(self.workers[name])

    def _spawn(self, child: WorkerHandle | GatewayHandle) -> None:
        if isinstance(child, GatewayHandle):
            child.start()
        else:
            self._descriptors.attach(child.peer, child.spawn(self._control))
        self.tree.started(child.name)

    def renew(self, name: str) -> None:
        """Ends a worker so that a successor takes over, or starts a worker that has ended for good."""
        if self.tree.renew(name, time.monotonic()):
            self.workers[name].retire()
        self._advance()

    def gone(self) -> set[str]:
        """The workers that have ended and are not started again: what waits for them waits for ever."""
        return {name for name, each in self.workers.items() if not each.is_alive and not self.tree.is_awaited(name)}

    # -- watching ----------------------------------------------------------------------------------------------------

    async def watch(self) -> None:
        """For ever: looks for children that hang, and for clients of which nothing is needed any more."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            self._switchboard.departures.see_off(self.gone())
            kills = kills_in_machine()
            self.gateway.look_for_kills(kills)
            self.gateway.end_if_hung()
            for worker in self.workers.values():
                stats = self._switchboard.worker_stats(worker.peer)
                ignores_input = self._switchboard.ignores_input(worker.peer)
                worker.look_for_kills(kills)
                worker.end_if_hung(stats.get("alive_ns", 0), stats.get("parks", 0), ignores_input=ignores_input)

    def _exited(self, worker: WorkerHandle) -> None:
        """A worker has died, or has ended as it was told."""
        self._descriptors.detach(worker.peer)
        self._switchboard.departures.caller_died(worker.peer)
        self._switchboard.wake_neighbours(worker.peer)
        end = worker.last_end
        if end is None:
            return
        if self._state() in ("draining", "stopped") and worker.told_to_stop:
            self._stopped(worker, end)
            return
        if self._state() == "starting" and (worker.error is not None or end.kind == "start_timeout"):
            self._give_up_on(worker, f"{worker.name} could not start: {worker.error or end}")
            return
        now_s, draw = time.monotonic(), random.random()
        if worker.could_load:
            outcome = self.tree.exited(worker.name, failed=end.failed, now_s=now_s, draw=draw)
        else:
            failures = worker.failed_starts
            outcome = self.tree.could_not_load(worker.name, failures=failures, now_s=now_s, draw=draw)
        self._act(worker, end, outcome)
        if worker.name in self.gone():
            self._switchboard.listeners.leave(worker.peer.instances)

    def _gateway_exited(self, gateway: GatewayHandle) -> None:
        """A client that makes the gateway die again and again must not end the graph: it is tried for ever, slowly."""
        if not gateway.is_missing:  # nobody wants it now, or whoever opens it is told
            return
        now_s, wait_s = time.monotonic(), LONGEST_DELAY_S
        if gateway.error is None:
            outcome = self.tree.exited(gateway.name, failed=True, now_s=now_s, draw=random.random())
            wait_s = outcome.delay_s if outcome.verdict == "restart" else wait_s
            logger.warning("the gateway is gone (%s); it is started again in %.2f s", gateway.last_end, wait_s)
        else:
            logger.error("the gateway could not be started again: %s", gateway.error)
        self.tree.postpone(gateway.name, now_s + wait_s)
        self._advance()

    def _stopped(self, worker: WorkerHandle, end: ExitReason) -> None:
        """A worker that was told to stop has ended. It is not started again, however it ended."""
        self._switchboard.listeners.leave(worker.peer.instances)
        if not end.failed or (worker.life.ended_in == "killed" and end.kind == "signal"):
            return
        logger.error("%s: %s while it stopped", worker.name, end)
        self.failed_to_stop[worker.name] = f"{end} while it stopped"
        self._crashes.keep(self._crashes.compose(worker, "the graph is stopping: it is not started again"))

    def _act(self, worker: WorkerHandle, end: ExitReason, outcome: Outcome) -> None:
        next_step = what_next(worker.name, worker.restart, outcome)
        if outcome.verdict == "give_up":
            self._give_up_on(worker, f"{next_step}: {end}")
        elif outcome.verdict == "ended" and self._state() == "starting":
            self._give_up_on(worker, f"{worker.name} could not start: {end}")
        elif outcome.verdict == "ended":
            logger.info("%s: %s; %s", worker.name, end, next_step)
        elif outcome.verdict == "restart":
            logger.warning("%s: %s; %s", worker.name, end, next_step)
            for name in outcome.stop:
                self.workers[name].retire()
        crashed = {"restart": True, "ended": end.failed, "expected": not end.was_obedient}
        if not worker.could_load and self._ends.get(worker.name) == end.text:
            crashed = {}  # one report of many tries
        self._ends[worker.name] = end.text
        report = None
        try:
            report = self._crashes.compose(worker, next_step) if crashed.get(outcome.verdict) else None
        finally:  # a report that cannot be composed must not keep a successor from being started
            self._advance()
        if report is not None:
            self._crashes.keep(report)

    def _give_up_on(self, worker: WorkerHandle, reason: str) -> None:
        """Keeps the worker's report before the graph ends: somebody may want to read it at once."""
        try:
            self._crashes.keep(self._crashes.compose(worker, f"the graph ends: {reason.partition(': ')[0]}"))
        finally:
            self._give_up(f"{reason}; `slabwire logs {self._graph} --crash` tells more", worker.detail)

    def _advance(self) -> None:
        """Starts the children that are due, and comes again when the next one is."""
        for name in self.tree.due(time.monotonic()):
            self._respawn(self.workers.get(name) or self.gateway)
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        due_s = self.tree.next_due_s()
        if due_s is not None:
            delay_s = max(0.0, due_s - time.monotonic())
            self._alarm = asyncio.get_running_loop().call_later(delay_s, self._advance)

    def _respawn(self, child: WorkerHandle | GatewayHandle) -> None:
        if self._state() == "stopped" or child.is_alive or child.told_to_stop:
            return
        try:
            self._spawn(child)
        except OSError as error:
            logger.error("%s cannot be started now (%s); tried again in %.0f s", child.name, error, _SPAWN_AGAIN_S)
            self.tree.postpone(child.name, time.monotonic() + _SPAWN_AGAIN_S)
            return
        child.restarts += 1

    # -- the end -----------------------------------------------------------------------------------------------------

    def stop(self, names: Iterable[str], tell: Tell | None) -> None:
        """Tells workers to stop. It kills those that are not ready, and without `tell` all of them."""
        for name in names:
            worker = self.workers[name]
            worker.told_to_stop = True
            if worker.is_ready and tell is not None:
                tell(name, Stop())
            else:
                worker.kill()

    async def wait_left(self, names: Iterable[str], until_s: float) -> None:
        """Waits until the on_stop of these workers has run, at most until then."""
        for name in names:
            await self.workers[name].wait_ended(max(0.0, until_s - time.monotonic()), or_in="left")

    async def end(self, until_s: float) -> None:
        """Waits until all workers have ended, and kills those that have not by then."""
        for worker in self.workers.values():
            await worker.wait_ended(max(0.0, until_s - time.monotonic()))
        for worker in self.workers.values():
            if worker.life.state not in ("absent", "killed"):
                logger.error("%s did not stop in time; it is killed", worker.name)
                self.failed_to_stop[worker.name] = "did not stop in time and was killed"
            worker.kill()
            await worker.wait_ended(None)


def what_next(worker: str, restart: str, outcome: Outcome) -> str:
    """What is done about the end of a worker, in words."""
    group = f" (group {outcome.group!r}, {outcome.strategy})" if outcome.group else ""
    if outcome.verdict == "expected":
        return "it was told to end"
    if outcome.verdict == "ended":
        return f"it is not started again: restart={restart!r}"
    if outcome.verdict == "give_up":
        often, within = outcome.restarts + 1, f"within {outcome.within_s:g} s"
        if outcome.group:
            return f"group {outcome.group!r} failed {often} times {within}, at last by {worker}"
        return f"{worker} died {often} times {within}"
    soon = f" in {outcome.delay_s:.2f} s" if outcome.delay_s else ""
    others = [each for each in outcome.start if each != worker]
    beside = f", with {', '.join(others)}{group}" if others else group
    return f"it is started again{soon}{beside}"
