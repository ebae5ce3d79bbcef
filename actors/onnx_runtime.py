"""ONNX Runtime: imported without what it would do beside running models, and the threads of its pools."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from typing import Any

from ..runtime.errors import SlabwireError
from ..runtime.host.topology import Core, Topology


def import_onnx_runtime(extra: str = "inference", failure: type[SlabwireError] = SlabwireError) -> Any:
    """The package. Raises `failure` where it is missing, which names the `extra` of slabwire that brings it.

    From 1.29 on its import would start a thread that collects telemetry, and leave a database in the user's home; the
    variable that prevents it is set here, unless somebody has set it.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError as error:
        raise failure(f"onnxruntime cannot be imported ({error}); pip install 'slabwire[{extra}]'") from error
    return onnxruntime


def session_options(runtime: Any, threads: int, *, spin: bool = False, seats: str = "") -> Any:
    """Options of a session with a pool of `threads` threads, the caller's included, which sit where `seats` says.

    `spin` lets idle threads of the pool look for work for a moment.
    """
    options = runtime.SessionOptions()
    # Never left to its default: that counts the machine's cores, and its pool ignores the process's affinity.
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Errors arrive as exceptions; below "fatal" each would also be written to standard error.
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spin and threads > 1 else "0")
    if seats:
        options.add_session_config_entry("session.intra_op_thread_affinities", seats)
    return options


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
