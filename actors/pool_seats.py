"""Where the threads of an ONNX Runtime pool sit: each on a core of its own, of those that the plan gave its worker."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence

from ..runtime.host.topology import Core, Topology


def pool_seats(threads: int, cpus: Collection[int]) -> str:
    """What ONNX Runtime takes as `session.intra_op_thread_affinities`; "" where the threads shall not be pinned.

    They are where this process is pinned to the plan's `cpus`, which hold a physical core for each of them. The calling
    thread counts as one, and is not pinned: the core that is left is its. `slabwire move` moves them along.
    """
    if threads < 2 or set(cpus) != os.sched_getaffinity(0):
        return ""
    return seats_on(threads, Topology.read().cores)


def seats_on(threads: int, cores: Sequence[Core]) -> str:
    """One entry for each thread but the calling one, with all hardware threads of its core; they count from 1."""
    if len(cores) < threads:
        return ""
    ordered = sorted(cores, key=lambda core: core.number)
    return ";".join(",".join(str(cpu + 1) for cpu in core.cpus) for core in ordered[1:threads])
