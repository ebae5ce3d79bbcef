"""The limits on memory that count for this process, read before memory is reserved."""

from __future__ import annotations

import resource
from dataclasses import dataclass
from pathlib import Path

from .cgroup import UNLIMITED_BYTES, groups_of, read_text
from .errors import OutOfMemory

# What a group may have, and what it has: version 2, version 1.
_FILES = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))


@dataclass(frozen=True)
class MemoryLimit:
    """What may still be taken, in bytes, and which setting says so."""

    available_nbytes: int
    setting: str


def _page_cache_nbytes(stat: Path) -> int:
    """What the kernel takes back from the cache of files before it refuses memory; usage counts it."""
    fields = dict(line.split(maxsplit=1) for line in read_text(stat).splitlines())
    # Version 1 has the sums over all groups below in fields of their own; version 2 has nothing else.
    names = ("total_inactive_file", "total_active_file")
    names = names if names[0] in fields else ("inactive_file", "active_file")
    return sum(int(fields.get(name, 0)) for name in names)


def _cgroup_limits(root: Path) -> list[MemoryLimit]:
    limits = []
    for group in groups_of(root, "memory"):
        for limit_file, usage_file in _FILES:
            limit, usage = read_text(group / limit_file), read_text(group / usage_file)
            if limit.isdigit() and usage.isdigit() and int(limit) < UNLIMITED_BYTES:
                needed = int(usage) - min(int(usage), _page_cache_nbytes(group / "memory.stat"))
                limits.append(MemoryLimit(int(limit) - needed, f"{group / limit_file} = {limit} bytes"))
    return limits


def _machine_limit(root: Path) -> list[MemoryLimit]:
    lines = read_text(root / "proc/meminfo").splitlines()
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
