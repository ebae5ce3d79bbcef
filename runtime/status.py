"""What `ps` and `top` show: one document about a running graph, read from shared memory without asking its workers."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ..shm.bell import now_ns
from ..shm.lane import OUTCOMES
from .process import WorkerProcess

if TYPE_CHECKING:
    from .supervisor import Supervisor

_TICKS = os.sysconf("SC_CLK_TCK")


def status_of(supervisor: Supervisor) -> dict[str, Any]:
    """State, workers with their actors, edges and memory."""
    board = supervisor.switchboard
    workers = [_worker(supervisor, worker) for worker in supervisor.workers.values()]
    return {
        "graph": supervisor.name,
        "pid": os.getpid(),
        "state": supervisor.state,
        "not_ready": [_reason(each) for each in supervisor.workers.values() if not each.is_ready],
        "started_unix_s": supervisor.started_unix_s,
        "clients": len(board.clients()),
        "memory_bytes": sum(segment.nbytes for _, _, segment in board.segments()),
        "supervisor": {"pid": os.getpid(), "pss_bytes": pss_nbytes(os.getpid()), "cpu_s": cpu_s(os.getpid())},
        "workers": workers,
        "edges": [_edge(supervisor, number) for number in range(len(supervisor.spec.edges))],
    }


def _reason(worker: WorkerProcess) -> dict[str, str]:
    if worker.is_alive:
        return {
            "actor": worker.name,
            "reason": f"starting (last: {worker.last_exit})" if worker.last_exit else "starting",
        }
    return {"actor": worker.name, "reason": worker.last_exit or "not started"}


def _worker(supervisor: Supervisor, worker: WorkerProcess) -> dict[str, Any]:
    stats = supervisor.switchboard.worker_stats(worker.party)
    names = ("spins", "parks", "wakes", "contended", "slab_bytes", "slab_used_bytes")
    tree = supervisor.workforce.tree
    is_awaited = worker.is_alive or tree.is_awaited(worker.name)
    state = "ready" if worker.is_ready else "starting" if is_awaited else "stopped"
    return {
        "name": worker.name,
        "pid": worker.pid if worker.is_alive else 0,
        "cores": list(worker.plan.cores),
        "threads": worker.plan.threads,
        "spin": worker.plan.spin,
        "reason": worker.plan.reason,
        "moves": supervisor.mover.moves.get(worker.name, 0),
        "state": "restarting" if state == "starting" and worker.restarts else state,
        "restarts": worker.restarts,
        "last_exit": worker.last_exit,
        "groups": tree.groups_of(worker.name),
        "pss_bytes": pss_nbytes(worker.pid) if worker.is_alive else 0,
        "cpu_s": cpu_s(worker.pid) if worker.is_alive else 0.0,
        **{name: stats.get(name, 0) for name in names},
        "actors": [_actor(supervisor, worker, instance) for instance in worker.plan.instances],
    }


def _actor(supervisor: Supervisor, worker: WorkerProcess, instance: str) -> dict[str, Any]:
    stats = supervisor.switchboard.actor_stats(worker.party, instance)
    busy_since = stats.pop("busy_since_ns")
    busy_for_s = (now_ns() - busy_since) / 1e9 if busy_since else 0.0
    lines = [each for each in supervisor.switchboard.lines.values() if each.target == instance]
    refused = sum(each.returns.load("refused") for each in lines if each.purpose != "reply")
    times = {"busy_s": stats.pop("busy_ns") / 1e9, "busy_for_s": max(0.0, busy_for_s)}
    longest_wait_s = stats.pop("longest_wait_ns") / 1e9
    return {"name": instance, **stats, **times, "longest_wait_s": longest_wait_s, "refused": refused}


def _edge(supervisor: Supervisor, number: int) -> dict[str, Any]:
    """An edge with the counters of its lanes added up. `full` is how many of these have no room now, `high_water` the
    most that ever waited in one.
    """
    edge = supervisor.spec.edges[number]
    stats = [each.stats() for each in supervisor.switchboard.lines.values() if each.edge == number]
    return {
        "source": str(edge.source),
        "target": str(edge.target),
        "capacity": edge.capacity,
        "when_full": edge.when_full,
        "lanes": len(stats),
        "full": sum(each["waiting"] >= edge.capacity for each in stats),
        "waiting": _total(stats, "waiting"),
        "sent": _total(stats, "published"),
        **{name: _total(stats, name) for name in OUTCOMES if name != "blocked_ns"},
        "blocked_s": _total(stats, "blocked_ns") / 1e9,
        "refused": _total(stats, "refused"),
        "high_water": max((each["high_water"] for each in stats), default=0),
    }


def _total(stats: list[dict[str, int]], name: str) -> int:
    return sum(each[name] for each in stats)


def pss_nbytes(pid: int) -> int:
    """The memory of a process, what it shares counted by shares; 0 if it is gone."""
    try:
        with open(f"/proc/{pid}/smaps_rollup") as rollup:
            found = [line for line in rollup if line.startswith("Pss:")]
    except OSError:
        return 0
    return int(found[0].split()[1]) * 1024 if found else 0


def cpu_s(pid: int) -> float:
    """User and system time of a process so far; 0 if it is gone."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            fields = stat.read().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS
