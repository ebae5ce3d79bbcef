"""What control groups (v1, v2 or both at once) allow this process: CPU time, CPUs, memory."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

# v1 writes "no limit" as the largest multiple of a page below 2**63; nothing above this can be meant as a limit.
UNLIMITED_BYTES = 1 << 60
_READ_NBYTES = 1 << 14
# What a group says its limits in, v2 first.
_CPU_FILES = ("cpu.max", "cpu.cfs_quota_us", "cpu.cfs_period_us")
_MEMORY_FILES = ("memory.max", "memory.limit_in_bytes")
_CPUSET_FILES = ("cpuset.cpus.effective", "cpuset.effective_cpus", "cpuset.cpus")


@dataclass(frozen=True)
class CgroupLimits:
    """`cpu_quota` is in cores' worth of time, `cpus` the CPU numbers of the cpuset; None: no limit.

    A group is bound by all groups above it, so each value is the strictest of the chain.
    """

    cpu_quota: float | None = None
    cpus: frozenset[int] | None = None
    memory_bytes: int | None = None


def read_text(path: Path | str) -> str:
    """The stripped text of a file of /proc or /sys; empty where it is missing or may not be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # a file object makes eight system calls of these three
    except OSError:
        return ""
    try:
        return b"".join(iter(lambda: os.read(descriptor, _READ_NBYTES), b"")).decode("utf-8", "replace").strip()
    except OSError:
        return ""
    finally:
        os.close(descriptor)


def parse_cpu_list(text: str) -> frozenset[int]:
    """The kernel's list format: "0-3,8" is {0, 1, 2, 3, 8}. Raises ValueError for anything else."""
    numbers: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        numbers.update(range(int(first), int(last or first) + 1))
    return frozenset(numbers)


def read_limits(root: Path) -> CgroupLimits:
    """The limits of the process that reads, below `root` ("/", or a recorded tree)."""
    quotas = [_quota(each) for each in groups_of(root, "cpu")]
    memory = [_memory(each) for each in groups_of(root, "memory")]
    cpusets = [_cpuset(each) for each in groups_of(root, "cpuset")]
    return CgroupLimits(
        min((each for each in quotas if each is not None), default=None),
        next((each for each in cpusets if each), None),  # "effective" is already the intersection with those above
        min((each for each in memory if each is not None), default=None),
    )


def limit_files(root: Path) -> Iterator[Path]:
    """Every file that limits may be read from, whether there or not."""
    for controller, names in (("cpu", _CPU_FILES), ("memory", _MEMORY_FILES), ("cpuset", _CPUSET_FILES)):
        for group in groups_of(root, controller):
            yield from (group / name for name in names)


def memory_group(root: Path, pid: int) -> Path | None:
    """The group that accounts for the memory of a process, as far as it can be seen from here."""
    return next((each for each in groups_of(root, "memory", str(pid)) if _counts_memory(each)), None)


def _counts_memory(group: Path) -> bool:
    return any((group / name).exists() for name in ("memory.events", "memory.oom_control"))


def groups_of(root: Path, controller: str, process: str = "self") -> Iterator[Path]:
    """The groups of a process, by default the one that reads, that may limit by `controller`, innermost first."""
    for mounted_root, mount_point, name in _mounts(root):
        if name in ("", controller):
            membership = _membership(root, name, process)
            if membership is not None:
                yield from _levels(root / mount_point.lstrip("/"), mounted_root, membership)


def _mounts(root: Path) -> Iterator[tuple[str, str, str]]:
    """(directory mounted, mount point, controller) for each mount of cgroups; v2 has the controller ""."""
    for line in read_text(root / "proc/self/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        mounted, filesystem = left.split(), right.split()
        if len(mounted) < 5 or len(filesystem) < 1:
            continue
        mount_point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), mounted[4])
        if filesystem[0] == "cgroup2":
            yield mounted[3], mount_point, ""
        elif filesystem[0] == "cgroup":
            for option in filesystem[-1].split(","):
                yield mounted[3], mount_point, option


def _membership(root: Path, controller: str, process: str) -> str | None:
    for line in read_text(root / "proc" / process / "cgroup").splitlines():
        _, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if (not names and not controller) or (controller and controller in names.split(",")):
            return path
    return None


def _levels(mount: Path, mounted_root: str, membership: str) -> Iterable[Path]:
    """From the process's own group up to the mount.

    In a container without a cgroup namespace the path is the host's while the mount starts at the container's group;
    a path that does not lead anywhere (also one with "..") means the mount itself.
    """
    inside = membership.removeprefix(mounted_root) if mounted_root != "/" else membership
    own = mount / inside.lstrip("/")
    if ".." in own.parts or not own.is_dir():
        return [mount]
    return [own, *(each for each in own.parents if each == mount or mount in each.parents)]


def _quota(group: Path) -> float | None:
    of_v2, quota_of_v1, period_of_v1 = (group / name for name in _CPU_FILES)
    quota, _, period = read_text(of_v2).partition(" ")
    if not quota:
        quota, period = read_text(quota_of_v1), read_text(period_of_v1)
    if not (quota.isdigit() and period.isdigit() and int(quota) and int(period)):
        return None  # absent, "max" or -1
    return int(quota) / int(period)


def _memory(group: Path) -> int | None:
    text = next(filter(None, (read_text(group / name) for name in _MEMORY_FILES)), "")
    return int(text) if text.isdigit() and int(text) < UNLIMITED_BYTES else None


def _cpuset(group: Path) -> frozenset[int]:
    for name in _CPUSET_FILES:
        text = read_text(group / name)
        if text:
            return parse_cpu_list(text)
    return frozenset()
