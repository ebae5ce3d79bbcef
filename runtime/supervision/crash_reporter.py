"""A crash report: how a worker ended, what it was doing, and what is done about it."""

from __future__ import annotations

import logging
import time
from typing import Any

from ..dataplane.switchboard import Switchboard
from ..errors import StartError
from ..postmortem.log_tail import LINES, shortened, stacks_in
from ..postmortem.remains import remains
from ..postmortem.report_store import keep
from .tree import Tree
from .worker_handle import WorkerHandle

logger = logging.getLogger("slabwire")


class CrashReporter:
    """Writes the reports of one graph. A report that cannot be written is a warning: the graph goes on."""

    def __init__(self, graph: str, switchboard: Switchboard, tree: Tree) -> None:
        self._graph = graph
        self._switchboard = switchboard
        self._tree = tree

    def keep(self, report: dict[str, Any]) -> None:
        """Writes it down."""
        try:
            keep(self._graph, report["worker"], report)
        except (OSError, StartError) as error:
            logger.warning("no crash report of %s could be written: %s", report["worker"], error)

    def compose(self, worker: WorkerHandle, next_step: str) -> dict[str, Any]:
        """Of a worker whose process was reaped and has no successor yet."""
        end, log = worker.last_end, worker.log_tail()
        board, peer = self._switchboard, worker.peer
        stats = board.worker_stats(peer)
        return {
            "graph": self._graph,
            "worker": worker.name,
            "actors": list(worker.plan.instances),
            "groups": self._tree.groups_of(worker.name),
            "pid": worker.pid,
            "unix_s": time.time(),
            "alive_s": worker.alive_s(),
            "was_ready": worker.life.was_ready,
            "kind": end.kind if end else "",
            "reason": str(end),
            "status": end.status if end else 0,
            "error": shortened(worker.error or ""),
            "traceback": shortened(worker.detail),
            "restarts": worker.restarts,
            "next": next_step,
            "stacks": shortened("\n".join(stacks_in(log))),
            **remains(board, peer),
            "memory": {name: stats.get(name, 0) for name in ("slab_bytes", "slab_used_bytes")},
            "counters": {each: board.actor_stats(peer, each) for each in peer.instances},
            "log": shortened("\n".join(log[-LINES:])),
        }
