"""The limits on memory that count for this process, read before memory is reserved."""

from __future__ import annotations

import resource
from dataclasses import dataclass
from pathlib import Path

from .errors import OutOfMemory


@dataclass(frozen=True)
class MemoryLimit:
    """What may still be taken, in bytes, and which setting says so."""

    available_nbytes: int
    setting: str


def _number(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _cgroup_paths(root: Path) -> dict[str, str]:
    """Controller ("" for the unified hierarchy) to path, of the calling process."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return {}
    return {controller: path for _, controllers, path in (line.split(":", 2) for line in lines)
            for controller in controllers.split(",")}


def _cgroup_limits(root: Path) -> list[MemoryLimit]:
    paths = _cgroup_paths(root)
    candidates = [
        (root / "sys/fs/cgroup", paths.get(""), "memory.max", "memory.current"),
        (root / "sys/fs/cgroup/memory", paths.get("memory"), "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ]
    limits = []
    for mount, path, limit_file, usage_file in candidates:
        # Inside a container the path names the host's tree while the mount shows only our part of it: try both.
        for folder in {mount, mount / (path or "/").lstrip("/")}:
            limit, usage = _number(folder / limit_file), _number(folder / usage_file)
            if limit is not None and usage is not None and limit < 1 << 60:
                limits.append(MemoryLimit(limit - usage, f"{folder / limit_file} = {limit} bytes"))
    return limits


def _machine_limit(root: Path) -> list[MemoryLimit]:
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
    except OSError:
        return []
    available = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    return [MemoryLimit(nbytes, f"MemAvailable of this machine = {nbytes} bytes") for nbytes in available]


def _address_space_limit() -> list[MemoryLimit]:
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft == resource.RLIM_INFINITY:
        return []
    with open("/proc/self/statm") as statm:
        used = int(statm.read().split()[0]) * resource.getpagesize()
    return [MemoryLimit(soft - used, f"RLIMIT_AS (ulimit -v) = {soft} bytes")]


def memory_limits(root: Path = Path("/")) -> list[MemoryLimit]:
    """All limits that apply to this process, the tightest first: cgroup v1 and v2, RLIMIT_AS, free memory."""
    limits = [*_cgroup_limits(root), *_address_space_limit(), *_machine_limit(root)]
    return sorted(limits, key=lambda each: each.available_nbytes)


def require_memory(nbytes: int, purpose: str) -> None:
    """Raises OutOfMemory if no limit leaves room for `nbytes` more."""
    for limit in memory_limits()[:1]:
        if limit.available_nbytes < nbytes:
            raise OutOfMemory(
                f"{purpose} needs {nbytes} bytes, but {limit.setting} leaves {max(0, limit.available_nbytes)}; "
                "raise that limit, or ask for less (memory_bytes= of graph.add)"
            )
