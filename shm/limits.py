"""The limits on memory that count for this process, read before memory is reserved."""

from __future__ import annotations

import resource
from dataclasses import dataclass
from pathlib import Path

from .errors import OutOfMemory

# cgroup v1 writes the largest multiple of a page below 2**63 where there is no limit.
_UNLIMITED = 1 << 60


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
    return {
        controller: path
        for _, controllers, path in (line.split(":", 2) for line in lines)
        for controller in controllers.split(",")
    }


def _folders(mount: Path, path: str) -> list[Path]:
    """The group of the process and all that it lies in, each of which may have a limit.

    Inside a container the path names the host's tree while the mount shows only our part: so the mount itself too.
    """
    group = Path(path.lstrip("/"))
    return [mount / each for each in (group, *group.parents) if ".." not in each.parts]


def _page_cache_nbytes(stat: Path) -> int:
    """What the kernel takes back from the cache of files before it refuses memory; usage counts it."""
    try:
        fields = dict(line.split(maxsplit=1) for line in stat.read_text().splitlines())
    except (OSError, ValueError):
        return 0
    # Version 1 has the sums over all groups below in fields of their own; version 2 has nothing else.
    names = ("total_inactive_file", "total_active_file")
    names = names if names[0] in fields else ("inactive_file", "active_file")
    return sum(int(fields.get(name, 0)) for name in names)


def _cgroup_limits(root: Path) -> list[MemoryLimit]:
    paths = _cgroup_paths(root)
    candidates = [
        (root / "sys/fs/cgroup", paths.get(""), "memory.max", "memory.current"),
        (root / "sys/fs/cgroup/memory", paths.get("memory"), "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ]
    limits = []
    for mount, path, limit_file, usage_file in candidates:
        for folder in _folders(mount, path or "/"):
            limit, usage = _number(folder / limit_file), _number(folder / usage_file)
            if limit is not None and usage is not None and limit < _UNLIMITED:
                needed = usage - min(usage, _page_cache_nbytes(folder / "memory.stat"))
                limits.append(MemoryLimit(limit - needed, f"{folder / limit_file} = {limit} bytes"))
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


def _file_size_limit() -> list[MemoryLimit]:
    """A memfd is a file, so the limit on the size of files holds for each segment."""
    soft, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    return [] if soft == resource.RLIM_INFINITY else [MemoryLimit(soft, f"RLIMIT_FSIZE (ulimit -f) = {soft} bytes")]


def memory_limits(root: Path = Path("/")) -> list[MemoryLimit]:
    """All limits that apply to a segment of this process, the tightest first.

    These are cgroup v1 and v2 with all groups above, RLIMIT_AS, RLIMIT_FSIZE, and the memory that is free.
    """
    limits = [*_cgroup_limits(root), *_address_space_limit(), *_file_size_limit(), *_machine_limit(root)]
    return sorted(limits, key=lambda each: each.available_nbytes)


def require_memory(nbytes: int, purpose: str, root: Path = Path("/")) -> None:
    """Raises OutOfMemory, naming the limit, if the tightest one does not leave room for `nbytes` more."""
    for limit in memory_limits(root)[:1]:
        if limit.available_nbytes < nbytes:
            raise OutOfMemory(
                f"{purpose} needs {nbytes} bytes, but {limit.setting} leaves {max(0, limit.available_nbytes)}; "
                "raise that limit, or ask for less (memory_bytes= of graph.add)"
            )
