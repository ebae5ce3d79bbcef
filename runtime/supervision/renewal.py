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
_NOTHING = Drained(0, 0)


class Renewals:
    """The supervisor's."""

    def __init__(self, graph: RunningGraph) -> None:
        self._graph = graph
        self._running: dict[str, asyncio.Task[dict[str, Any]]] = {}
        self._drained: dict[str, asyncio.Future[Drained]] = {}

    def begin(self, names: Sequence[str], drain_timeout_s: float) -> list[asyncio.Task[dict[str, Any]]]:
        """Replaces one after the other, so that the others serve meanwhile: the outcome of each, later. A worker that
        is being replaced already is not replaced twice; those that do not serve are the first.
        """
        loop = asyncio.get_running_loop()
        before: asyncio.Task[dict[str, Any]] | None = None
        for name in sorted(names, key=self._is_better_left):
            if name not in self._running:
                worker = self._graph.workers[name]
                task = self._running[name] = loop.create_task(self._renew_behind(before, worker, drain_timeout_s))
                task.add_done_callback(lambda _, name=name: self._running.pop(name))  # type: ignore[misc]
            before = self._running[name]
        return [self._running[name] for name in names]

    def _is_better_left(self, name: str) -> tuple[bool, bool]:
        """What is best left until the others serve again sorts behind them."""
        return name not in self._running, self._graph.workers[name].is_ready

    def heard(self, worker: str, drained: Drained) -> None:
        """A worker has nothing in flight any more, or no more time."""
        waiting = self._drained.get(worker)
        if waiting is not None and not waiting.done():
            waiting.set_result(drained)

    async def _renew_behind(
        self, before: asyncio.Task[dict[str, Any]] | None, worker: WorkerHandle, drain_timeout_s: float
    ) -> dict[str, Any]:
        """Not before the one before has its successor, and not at all where that could not start: what is wrong with
        it would end this one, too.
        """
        if before is not None:
            await asyncio.wait([before])
            outcome = before.result()
            if outcome["error"]:
                pid = worker.pid if worker.is_alive else 0
                error = f"it goes on as it was, since {outcome['worker']} could not be restarted"
                return _outcome(worker.name, pid, pid, error=error)
        return await self._renew(worker, drain_timeout_s)

    async def _renew(self, worker: WorkerHandle, drain_timeout_s: float) -> dict[str, Any]:
        began_s, before = time.monotonic(), worker.pid if worker.is_alive else 0
        drained = await self._drain(worker, drain_timeout_s) if worker.is_ready else Drained(0, 0)
        failed_starts = worker.failed_starts
        if not worker.is_alive or worker.pid == before:  # else it has died meanwhile, and has its successor
            self._graph.workforce.renew(worker.name)
        error = await self._awaited(worker, before, failed_starts)
        logger.info("%s was restarted: %s", worker.name, error or f"pid {before} to {worker.pid}")
        pid = worker.pid if worker.is_alive else 0
        return _outcome(worker.name, before, pid, drained, time.monotonic() - began_s, error)

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


def _outcome(
    worker: str, before: int, pid: int, drained: Drained = _NOTHING, seconds: float = 0.0, error: str = ""
) -> dict[str, Any]:
    """For the document of `Restart`."""
    return {
        "worker": worker,
        "before": before,
        "pid": pid,
        "drained": drained.begun - drained.left,
        "cut_off": drained.left,
        "seconds": round(seconds, 3),
        "error": error,
    }
