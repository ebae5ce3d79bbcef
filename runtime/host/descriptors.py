"""Whether there are descriptors enough, asked before ZeroMQ needs them: it aborts the process where there are not."""

from __future__ import annotations

import os
import resource

from ..errors import Overloaded, SlabwireError, StartError
from ..spec import GraphSpec

# A context of ZeroMQ, its socket and the connection have 9; what a graph hands over at once, or a process that is
# started needs for a moment, is no more than that.
FOR_A_CONNECTION = 16
# Of a supervisor with one client, measured: itself 20, a worker 16, a lane of an edge 2, the gateway, a client, 20.
_ITSELF, _EACH_WORKER, _EACH_LANE, _GATEWAY, _IN_RESERVE = 20, 16, 2, 20, 12
REMEDY = "raise the limit where the program is started (`ulimit -n 4096`; `ulimit -Hn` says how far)"


def raise_limit() -> None:
    """Lets a process of ours have as many open files as it may: the soft limit is often 1024. Children inherit it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ValueError, OSError):
        return  # it stays as it is; whoever needs more says so


def free_descriptors() -> int | None:
    """How many files more this process may open; None: any number."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if limit == resource.RLIM_INFINITY else limit - _used(limit)


def require_free(number: int, purpose: str, error: type[SlabwireError] = Overloaded) -> None:
    """Raises the error where this process may not open so many files more."""
    free = free_descriptors()
    if free is not None and free < number:
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        raise error(
            f"{purpose} needs {number} open files, and this process has {limit - free} of {limit} "
            f"(RLIMIT_NOFILE): {REMEDY}, or close some"
        )


def require_for_graph(spec: GraphSpec, *, listens: bool) -> None:
    """Raises StartError where the supervisor of such a graph may not open as many files as it needs."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    replicas = {each.name: each.replicas for each in spec.actors}
    lanes = sum(replicas[each.source.actor] * replicas[each.target.actor] for each in spec.edges)
    needed = _ITSELF + _IN_RESERVE + _EACH_WORKER * sum(replicas.values()) + _EACH_LANE * lanes + _GATEWAY * listens
    if limit != resource.RLIM_INFINITY and limit < needed:
        raise StartError(
            f"its supervisor needs {needed} open files (workers: {sum(replicas.values())}, edges: {lanes}, and a "
            f"client), and may have {limit} (RLIMIT_NOFILE): {REMEDY}"
        )


def is_scarce(descriptor: int) -> bool:
    """Whether few are left, by the number of one that was just opened: the kernel gives the lowest."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return limit != resource.RLIM_INFINITY and descriptor >= limit - _IN_RESERVE


def _used(limit: int) -> int:
    try:
        return len(os.listdir("/proc/self/fd")) - 1  # and the one that listed the folder
    except OSError:
        return limit
