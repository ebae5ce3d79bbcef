"""The machine as this process may use it: cores, SMT siblings, caches, NUMA nodes and limits."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...shm.cgroup import parse_cpu_list, read_limits, read_text

# Of the capacity of the fastest CPU. Cores of one kind differ by how high each may be clocked: those of an NVIDIA GB10
# by 3 %, while its other kind has 0.7; a phone's middle cores have 0.84, its small ones 0.27.
SLOW_BELOW = 0.75


@dataclass(frozen=True)
class Core:
    """One physical core.

    `cpus` are its hardware threads that this process may run on. `l2`, `l3` and `number` name a group by the lowest
    CPU number in it, whether allowed or not, so that two cores share a cache exactly when the names are equal.
    """

    number: int
    cpus: tuple[int, ...]
    l2: int
    l3: int
    node: int = 0
    package: int = 0
    efficient: bool = False  # a slower core of a hybrid processor


@dataclass(frozen=True)
class Topology:
    """What a plan starts from. `cores` is ordered: fast ones first, then by node, L3 and number.

    `quota` is the CPU time that a cgroup allows, in cores (None: no limit). `memory_bytes` is the strictest of the
    machine's memory, the cgroup's limit and RLIMIT_AS; `memory_limited_by` says which of them it is.
    """

    cores: tuple[Core, ...]
    quota: float | None = None
    memory_bytes: int | None = None
    memory_limited_by: str = "unknown"

    def __post_init__(self) -> None:
        if not self.cores:
            raise ValueError("a topology has at least one core that may be used")

    @classmethod
    def read(cls, root: Path = Path("/")) -> Topology:
        """Reads this machine, or the one whose /proc and /sys were recorded below `root`.

        What the kernel does not tell (no sysfs in some sandboxes) is taken in the plainest way: each CPU is a core of
        its own, all share one L3 and one node.
        """
        limits = read_limits(root)
        allowed = _allowed(root, limits.cpus)
        cores = _cores(root / "sys/devices/system", allowed, _efficient(root, allowed))
        memory_bytes, limited_by = _memory(root, limits.memory_bytes)
        return cls(tuple(sorted(cores, key=_order)), limits.cpu_quota, memory_bytes, limited_by)

    @property
    def cpus(self) -> tuple[int, ...]:
        """All hardware threads that may be used."""
        return tuple(sorted(cpu for core in self.cores for cpu in core.cpus))

    @property
    def usable_cores(self) -> int:
        """How many physical cores the quota can keep busy, the last one perhaps in part."""
        return len(self.cores) if self.quota is None else max(1, min(len(self.cores), math.ceil(self.quota)))

    @property
    def whole_cores(self) -> int:
        """How many physical cores the quota can keep busy all the time; at least 1."""
        return len(self.cores) if self.quota is None else max(1, min(len(self.cores), math.floor(self.quota)))

    def describe(self) -> str:
        """One line for people."""
        parts = [f"{len(self.cores)} {'core' if len(self.cores) == 1 else 'cores'}"]
        if len(self.cpus) > len(self.cores):
            parts.append(f"{len(self.cpus)} hardware threads")
        parts += [
            _count("L3", {core.l3 for core in self.cores}),
            _count("NUMA node", {core.node for core in self.cores}),
        ]
        if self.quota is not None:
            parts.append(f"CPU quota {self.quota:g}")
        if self.memory_bytes is not None:
            parts.append(f"{self.memory_bytes / 2**30:.1f} GiB of memory ({self.memory_limited_by})")
        return ", ".join(parts)

    def to_plain(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Topology:
        """The inverse of `to_plain`, also after JSON or msgpack."""
        cores = tuple(Core(**{**each, "cpus": tuple(each["cpus"])}) for each in plain["cores"])
        return cls(**{**plain, "cores": cores})


def _order(core: Core) -> tuple[bool, int, int, int]:
    return core.efficient, core.node, core.l3, core.number


def _count(noun: str, things: set[int]) -> str:
    return f"{len(things)} {noun}{'s' if len(things) > 1 else ''}"


def _listed(path: Path) -> frozenset[int]:
    try:
        return parse_cpu_list(read_text(path))
    except ValueError:
        return frozenset()


def _allowed(root: Path, cpuset: frozenset[int] | None) -> frozenset[int]:
    """Affinity, cut to the cpuset and to what is online; at least one CPU."""
    affinity = parse_cpu_list(_field(root / "proc/self/status", "Cpus_allowed_list"))
    online = _listed(root / "sys/devices/system/cpu/online")
    allowed = affinity or online or _described(root / "sys/devices/system/cpu") or frozenset({0})
    for limit in (online, cpuset):
        # Where two sources contradict each other (a stale record, a sandbox) the affinity is what the kernel enforces.
        allowed = (allowed & limit) if limit and allowed & limit else allowed
    return allowed


def _described(folder: Path) -> frozenset[int]:
    """The CPUs that have a topology, which those that are offline have not."""
    folders = (each.parent.name for each in folder.glob("cpu*/topology"))
    return frozenset(int(name[3:]) for name in folders if name[3:].isdigit())


def _field(path: Path, name: str) -> str:
    for line in read_text(path).splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return value.strip()
    return ""


def _efficient(root: Path, allowed: frozenset[int]) -> frozenset[int]:
    """The CPUs of the slower kind: Intel lists them; elsewhere each CPU may have a capacity, the fastest one 1024."""
    listed = _listed(root / "sys/devices/cpu_atom/cpus")
    if listed:
        return listed if _listed(root / "sys/devices/cpu_core/cpus") else frozenset()
    texts = {cpu: read_text(root / f"sys/devices/system/cpu/cpu{cpu}/cpu_capacity") for cpu in allowed}
    capacities = {cpu: int(text) for cpu, text in texts.items() if text.isdigit()}
    return frozenset(cpu for cpu, capacity in capacities.items() if capacity < SLOW_BELOW * max(capacities.values()))


def _cores(system: Path, allowed: frozenset[int], efficient: frozenset[int]) -> Iterable[Core]:
    nodes = _nodes(system / "node")
    seen: set[int] = set()
    for cpu in sorted(allowed):
        if cpu in seen:
            continue
        topology = system / f"cpu/cpu{cpu}/topology"
        siblings = (_listed(topology / "core_cpus_list") or _listed(topology / "thread_siblings_list")) | {cpu}
        seen |= siblings
        package = read_text(topology / "physical_package_id")
        yield Core(
            number=min(siblings),
            cpus=tuple(sorted(siblings & allowed)),
            l2=_cache(system, cpu, 2, min(siblings)),
            l3=_cache(system, cpu, 3, _package_start(topology)),
            node=nodes.get(cpu, 0),
            package=int(package) if package.isdigit() else 0,  # -1 where a hypervisor does not tell
            efficient=cpu in efficient,
        )


def _package_start(topology: Path) -> int:
    """Stands for the L3 where none is reported: cores of one package are taken to share one."""
    return min(_listed(topology / "package_cpus_list") or _listed(topology / "core_siblings_list") or {0})


def _cache(system: Path, cpu: int, level: int, fallback: int) -> int:
    for index in sorted((system / f"cpu/cpu{cpu}/cache").glob("index*")):
        if read_text(index / "level") == str(level) and read_text(index / "type") != "Instruction":
            return min(_listed(index / "shared_cpu_list"), default=fallback)
    return fallback


def _nodes(folder: Path) -> dict[int, int]:
    nodes = [(int(path.name[4:]), path) for path in folder.glob("node*") if path.name[4:].isdigit()]
    return {cpu: node for node, path in sorted(nodes) for cpu in _listed(path / "cpulist")}


def _memory(root: Path, cgroup_bytes: int | None) -> tuple[int | None, str]:
    limits: list[tuple[int, str]] = []
    total = _field(root / "proc/meminfo", "MemTotal").split()
    if total and total[0].isdigit():
        limits.append((int(total[0]) * 1024, "memory of the machine"))
    if cgroup_bytes is not None:
        limits.append((cgroup_bytes, "cgroup"))
    for line in read_text(root / "proc/self/limits").splitlines():
        soft = line.removeprefix("Max address space").split()
        if line.startswith("Max address space") and soft and soft[0].isdigit():
            limits.append((int(soft[0]), "RLIMIT_AS"))
    return min(limits, default=(None, "unknown"), key=lambda limit: limit[0] or 0)
