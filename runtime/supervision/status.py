"""What `ps` and `top` show: one document about a running graph, read from shared memory without asking its workers."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from typing import Any

from ...shm.bell import now_ns
from ...shm.lane import OUTCOMES
from ...shm.open_calls import calls_left
from ..dataplane.peers import Peer
from ..dataplane.switchboard import Switchboard
from ..host.process_usage import cpu_s, pss_of
from ..telemetry.stats import CellStats
from .balancer import Balancer
from .mover import Mover
from .running_graph import RunningGraph
from .worker_handle import WorkerHandle


async def status_of(graph: RunningGraph, mover: Mover, balancer: Balancer | None) -> dict[str, Any]:
    """State, workers with their actors, edges and memory."""
    pids = [each.pid for each in graph.workers.values() if each.is_alive]
    # In a thread: large workers would hold up the loop, which restarts others.
    memory = await asyncio.to_thread(pss_of, [os.getpid(), graph.spawner.fork_server_pid, *pids])
    return _document(graph, mover, balancer, memory)


def _document(
    graph: RunningGraph, mover: Mover, balancer: Balancer | None, memory: Mapping[int, int]
) -> dict[str, Any]:
    board = graph.switchboard
    workers = [_worker(graph, worker, mover.moves.get(worker.name, 0), memory) for worker in graph.workers.values()]
    fork_server = graph.spawner.fork_server_pid
    gateway = graph.gateway.status()
    return {
        "graph": graph.name,
        "pid": os.getpid(),
        "state": graph.state,
        "not_ready": [
            *(_reason(each) for each in graph.workers.values() if not each.is_ready),
            *_reason_of_gateway(gateway),
        ],
        "started_unix_s": graph.started_unix_s,
        "clients": len(board.clients()),
        "memory_bytes": sum(segment.nbytes for _, _, segment in board.segments()),
        "supervisor": {"pid": os.getpid(), "pss_bytes": memory.get(os.getpid(), 0), "cpu_s": cpu_s(os.getpid())},
        "nursery": {"pid": fork_server, "pss_bytes": memory.get(fork_server, 0)},
        "gateway": gateway,
        "workers": workers,
        "rebalance": {"moves": balancer.moves, "last": balancer.last} if balancer is not None else None,
        "edges": edges_of(board, lambda name: graph.workers[name].is_ready),
    }


def durations_of(graph: RunningGraph) -> dict[str, list[int]]:
    """How many runs of each actor instance took how long, by the buckets of CellStats."""
    return {
        instance: CellStats(worker.peer.stats, row).durations()
        for worker in graph.workers.values()
        if worker.peer.stats is not None
        for row, instance in enumerate(worker.peer.instances)
    }


def _reason(worker: WorkerHandle) -> dict[str, str]:
    if worker.is_alive:
        return {
            "actor": worker.name,
            "reason": f"starting (last: {worker.last_exit})" if worker.last_exit else "starting",
        }
    return {"actor": worker.name, "reason": worker.last_exit or "not started"}


def _reason_of_gateway(gateway: dict[str, Any] | None) -> list[dict[str, str]]:
    """Why a gateway that was asked for is not ready. Nobody waits for one that listens in the run directory alone."""
    if gateway is None or not gateway["listen"] or gateway["state"] == "ready":
        return []
    last = f" (last: {gateway['last_exit']})" if gateway["last_exit"] else ""
    silent = f" for {gateway['silent_s']:.0f} s" if gateway["state"] == "silent" else ""
    return [{"actor": "the gateway", "reason": f"{gateway['state']}{silent}{last}"}]


def _worker(graph: RunningGraph, worker: WorkerHandle, moves: int, memory: Mapping[int, int]) -> dict[str, Any]:
    board = graph.switchboard
    stats = board.worker_stats(worker.peer)
    names = ("spins", "parks", "wakes", "contended", "collections", "slab_bytes", "slab_used_bytes", "blocks_out")
    durations = ("collecting", "longest_collection")
    tree = graph.workforce.tree
    is_awaited = worker.is_alive or tree.is_awaited(worker.name)
    state = "ready" if worker.is_ready else "starting" if is_awaited else "stopped"
    return {
        "name": worker.name,
        "pid": worker.pid if worker.is_alive else 0,
        "cores": list(worker.plan.cores),
        "threads": worker.plan.threads,
        "spin": worker.plan.spin,
        "reason": worker.plan.reason,
        "moves": moves,
        "state": "restarting" if state == "starting" and worker.restarts else state,
        "restarts": worker.restarts,
        "last_exit": worker.last_exit,
        "groups": tree.groups_of(worker.name),
        "pss_bytes": memory.get(worker.pid, 0) if worker.is_alive else 0,
        "cpu_s": worker.cpu_s,
        **{name: stats.get(name, 0) for name in names},
        **{f"{name}_s": stats.get(f"{name}_ns", 0) / 1e9 for name in durations},
        "leases": sum(each.lent()[1] for each in board.lanes.values() if each.consumer is worker.peer),
        "calls": len(calls_left(worker.peer.bell)),
        "most_calls": worker.peer.calls,
        "actors": actors_of(board, worker.peer),
    }


def actors_of(board: Switchboard, peer: Peer) -> list[dict[str, Any]]:
    """The actors of one worker, with their counters."""
    return [_actor(board, peer, instance) for instance in peer.instances]


def _actor(board: Switchboard, peer: Peer, instance: str) -> dict[str, Any]:
    stats = board.actor_stats(peer, instance)
    busy_since = stats.pop("busy_since_ns")
    now = now_ns()
    lanes = [each for each in board.lanes.values() if each.target == instance]
    inputs = [each for each in lanes if each.purpose != "reply"]
    times = {name: stats.pop(f"{name}_ns") / 1e9 for name in ("busy", "awaited", "longest_wait")}
    return {
        "name": instance,
        **stats,
        "places": board.routing.spec.actor(board.routing.actor_of[instance]).concurrency,
        **{f"{name}_s": value for name, value in times.items()},
        "busy_for_s": max(0.0, (now - busy_since) / 1e9) if busy_since else 0.0,
        "oldest_s": max((_age_s(each.oldest_ns(), now) for each in inputs), default=0.0),
        "refused": peer.refused[instance] + sum(each.returns.load("refused") for each in inputs),
        "leases": sum(each.lent()[1] for each in inputs),
    }


def edges_of(board: Switchboard, is_ready: Callable[[str], bool]) -> list[dict[str, Any]]:
    """All edges of a graph, with their counters; `is_ready` is asked for the worker behind each lane."""
    return [_edge(board, is_ready, number) for number in range(len(board.routing.spec.edges))]


def _edge(board: Switchboard, is_ready: Callable[[str], bool], number: int) -> dict[str, Any]:
    """An edge with the counters of its lanes added up.

    `full` is how many of these have no room now, `paused` how many whose reader is not ready, `high_water` the most
    that ever waited in one, `oldest_s` how long the oldest message has been on the way, `blocked_for_s` how long the
    one that waits for room has waited.
    """
    edge, now = board.routing.spec.edges[number], now_ns()
    lanes = [each for each in board.lanes.values() if each.edge == number]
    stats = [each.stats() for each in lanes]
    blocked_for = [_age_s(each["blocked_since_ns"], now) for each in stats]
    return {
        "source": str(edge.source),
        "target": str(edge.target),
        "capacity": edge.capacity,
        "when_full": edge.when_full,
        "lanes": len(stats),
        "full": sum(each["waiting"] >= edge.capacity for each in stats),
        "paused": sum(not is_ready(each.consumer.name) for each in lanes),
        "waiting": _total(stats, "waiting"),
        "oldest_s": max((_age_s(each.oldest_ns(), now) for each in lanes), default=0.0),
        "sent": _total(stats, "published"),
        **{name: _total(stats, name) for name in OUTCOMES if name != "blocked_ns"},
        "blocked_s": sum(lane.blocked_ns(each, now) for lane, each in zip(lanes, stats, strict=True)) / 1e9,
        "blocked_for_s": max(blocked_for, default=0.0),
        "refused": _total(stats, "refused"),
        "high_water": max((each["high_water"] for each in stats), default=0),
    }


def _age_s(since_ns: int, now: int) -> float:
    """For how long something has been so; 0 for what is not, or says what cannot be."""
    return max(0.0, (now - since_ns) / 1e9) if since_ns else 0.0


def _total(stats: list[dict[str, int]], name: str) -> int:
    return sum(each[name] for each in stats)
