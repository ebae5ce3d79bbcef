"""Replaces workers on demand: drains each, ends it and waits for its successor. On the supervisor's loop."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any

from ..control.worker_line import Drained, Retire
from .running_graph import RunningGraph
from .worker_handle import WorkerHandle

logger = logging.getLogger("slabwire")

# Beyond the time that a worker has to drain: a worker that is deep in a handler says nothing.
_ANSWER_WITHIN_S = 1.0
_LOOK_EVERY_S = 0.005


class Renewals:
    """The supervisor's."""

    def __init__(self, graph: RunningGraph) -> None:
        self._graph = graph
        self._running: dict[str, asyncio.Task[dict[str, Any]]] = {}
        self._drained: dict[str, asyncio.Future[Drained]] = {}

    def begin(self, names: Sequence[str], drain_timeout_s: float) -> list[asyncio.Task[dict[str, Any]]]:
        """The outcome of each, later. A worker that is being replaced already is not replaced twice."""
        loop = asyncio.get_running_loop()
        for name in names:
            if name not in self._running:
                worker = self._graph.workers[name]
                task = self._running[name] = loop.create_task(self._renew(worker, drain_timeout_s))
                task.add_done_callback(lambda _, name=name: self._running.pop(name))  # type: ignore[misc]
        return [self._running[name] for name in names]

    def heard(self, worker: str, drained: Drained) -> None:
        """A worker has nothing in flight any more, or no more time."""
        waiting = self._drained.get(worker)
        if waiting is not None and not waiting.done():
            waiting.set_result(drained)

    async def _renew(self, worker: WorkerHandle, drain_timeout_s: float) -> dict[str, Any]:
        began_s, before = time.monotonic(), worker.pid if worker.is_alive else 0
        drained = await self._drain(worker, drain_timeout_s) if worker.is_ready else Drained(0, 0)
        failed_starts = worker.failed_starts
        if not worker.is_alive or worker.pid == before:  # else it has died meanwhile, and has its successor
            self._graph.workforce.renew(worker.name)
        error = await self._awaited(worker, before, failed_starts)
        said = {
            "worker": worker.name,
            "before": before,
            "pid": worker.pid if worker.is_alive else 0,
            "drained": drained.begun - drained.left,
            "cut_off": drained.left,
            "seconds": round(time.monotonic() - began_s, 3),
            "error": error,
        }
        logger.info("%s was restarted: %s", worker.name, error or f"pid {before} to {worker.pid}")
        return said

    async def _drain(self, worker: WorkerHandle, timeout_s: float) -> Drained:
        pid = worker.pid
        heard = self._drained[worker.name] = asyncio.get_running_loop().create_future()
        self._graph.tell(worker.name, Retire(timeout_s))
        until_s = time.monotonic() + timeout_s + _ANSWER_WITHIN_S
        while not heard.done() and worker.is_alive and worker.pid == pid and time.monotonic() < until_s:
            await asyncio.wait([heard], timeout=_LOOK_EVERY_S * 10)
        del self._drained[worker.name]
        return heard.result() if heard.done() else self._counted(worker)

    def _counted(self, worker: WorkerHandle) -> Drained:
        """What the counters tell of a worker that did not answer. Its plain handler that runs will still end."""
        board = self._graph.switchboard
        rows = [board.actor_stats(worker.peer, each) for each in worker.peer.instances]
        left = sum(row["in_flight"] for row in rows)
        return Drained(left, left)

    async def _awaited(self, worker: WorkerHandle, before: int, failed_starts: int) -> str:
        """Why no successor has become ready; "" once one has."""
        while not (worker.is_ready and worker.pid != before):
            if worker.told_to_stop:
                return "the graph was stopped meanwhile"
            if worker.failed_starts > failed_starts:
                return f"its successor could not start: {worker.last_exit}; it is tried again as its policy says"
            await asyncio.sleep(_LOOK_EVERY_S)
        return ""
