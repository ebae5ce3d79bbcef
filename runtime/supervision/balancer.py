"""Follows the rebalancer: reads what the workers of a running graph want, and moves them."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from ..host.cpu_load import LoadMeter
from ..placement.moves import MoveError
from ..placement.plan import cpu_list
from ..placement.rebalance import Rebalancer
from .mover import Mover
from .running_graph import RunningGraph

# A few looks until a cause has lasted long enough; each opens one file a thread.
LOOK_EVERY_S = 0.5

logger = logging.getLogger("slabwire")


class Balancer:
    """The supervisor's, on its loop."""

    def __init__(self, graph: RunningGraph, mover: Mover) -> None:
        self._graph = graph
        self._mover = mover
        self._rebalancer = Rebalancer(graph.topology)
        self._meter = LoadMeter()
        self.moves = 0
        self.last: dict[str, Any] | None = None  # the last move

    async def watch(self) -> None:
        """Looks again and again, while the graph is ready."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            if self._graph.state == "ready":
                self.look(time.monotonic())

    def look(self, now_s: float) -> None:
        """Moves a worker if one should."""
        workers = self._graph.workers
        demands = self._meter.demands({name: each.pid for name, each in workers.items() if each.is_ready}, now_s)
        proposal = self._rebalancer.look(self._graph.plan, demands, now_s)
        if proposal is None:
            return
        worker = workers[proposal.worker]
        before = worker.plan.cores
        try:
            self._mover.move(worker, proposal.cpus, "moved here by rebalancing")
        except MoveError as error:
            logger.warning("rebalancing: %s", error)
            return
        self.moves += 1
        self.last = {
            "worker": worker.name,
            "from": list(before),
            "to": list(proposal.cpus),
            "reason": proposal.reason,
        }
        logger.info(
            "rebalancing: %s went from CPU %s to %s: %s",
            worker.name,
            cpu_list(before),
            cpu_list(proposal.cpus),
            proposal.reason,
        )
