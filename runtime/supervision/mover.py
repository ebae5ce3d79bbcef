"""Moves workers of the running graph: plan, threads, and what the worker knows of both."""

from __future__ import annotations

import logging
from typing import Any

from ..control.worker_line import Seat
from ..host.affinity import repin
from ..placement.moves import MoveError, changed, moved, wanted_cpus
from ..placement.plan import WorkerPlan, cpu_list
from .running_graph import RunningGraph
from .worker_handle import WorkerHandle

logger = logging.getLogger("slabwire")


class Mover:
    """The supervisor's; on its loop. A process that dies meanwhile has a successor that starts by the new plan."""

    def __init__(self, graph: RunningGraph) -> None:
        self._graph = graph
        self.moves: dict[str, int] = {}

    def serve(self, actor: str, cpus: str) -> dict[str, Any]:
        """Does what `slabwire move` asks for. Raises UnknownPort and MoveError."""
        worker = self._worker_of(actor)
        before = self._graph.plan
        wanted = wanted_cpus(cpus, before, self._graph.topology, worker.name)
        if wanted != worker.plan.cores:
            self.move(worker, wanted, "moved here")
        lines = changed(before, self._graph.plan)
        return {
            "worker": worker.name,
            "instances": list(worker.plan.instances),
            "from": list(before.worker(worker.name).cores),
            "to": list(worker.plan.cores),
            "changed": [each.to_plain() for each in lines],
        }

    def _worker_of(self, actor: str) -> WorkerHandle:
        instances = self._graph.instances_of(actor)
        homes = list(dict.fromkeys(self._graph.plan.worker_of(each).name for each in instances))
        if len(homes) > 1:
            raise MoveError(f"{actor} has replicas in {len(homes)} workers; say which: {', '.join(instances)}")
        return self._graph.workers[homes[0]]

    def move(self, worker: WorkerHandle, cpus: tuple[int, ...], why: str) -> None:
        """Threads first: what the kernel refuses leaves the plan as it was. Raises MoveError."""
        old = worker.plan.cores
        plan = moved(self._graph.plan, self._graph.topology, worker.name, cpus, why)
        if worker.is_alive:
            try:
                repin(worker.pid, cpus)
            except OSError as error:
                raise MoveError(
                    f"the kernel does not let {worker.name} run on CPU {cpu_list(cpus)} ({error.strerror}): "
                    "its cpuset was changed since the graph was started"
                ) from error
        lines = changed(self._graph.plan, plan)
        self._graph.switchboard.plan = plan
        for line in lines:
            self._graph.workers[line.name].plan = line
            self._tell(line)
        self.moves[worker.name] = self.moves.get(worker.name, 0) + 1
        logger.info("%s: CPU %s to %s: %s", worker.name, cpu_list(old), cpu_list(cpus), worker.plan.reason)

    def _tell(self, line: WorkerPlan) -> None:
        self._graph.tell(line.name, Seat(list(line.cores), line.spin))

    def settle(self, worker: WorkerHandle) -> None:
        """A worker has become ready. One that was moved while it started may have missed it."""
        if worker.plan != worker.spawned_by:
            try:
                repin(worker.pid, worker.plan.cores)
            except OSError as error:
                logger.error("%s cannot be pinned to CPU %s: %s", worker.name, cpu_list(worker.plan.cores), error)
            self._tell(worker.plan)
