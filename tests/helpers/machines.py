"""Machines that we do not have, as their /proc and /sys show them: facts of real ones, written as trees by `record`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from slabwire.runtime.placement.plan import cpu_list


@dataclass
class Cpu:
    """One hardware thread, as sysfs describes it."""

    siblings: str
    l2: str
    l3: str | None
    package: int = 0
    capacity: int | None = None


@dataclass
class Machine:
    cpus: dict[int, Cpu]
    nodes: dict[int, str]
    allowed: str
    memory_kib: int = 16 << 20
    address_space: str = "unlimited"
    tells_caches: bool = True
    extra: dict[str, str] = field(default_factory=dict)


V2 = "31 23 0:28 / /sys/fs/cgroup rw,relatime shared:4 - cgroup2 cgroup2 rw"


def record(root: Path, machine: Machine) -> Path:
    """Writes the tree of a machine below `root`."""
    files = dict(machine.extra)
    files["proc/self/status"] = f"Name:\tpython\nCpus_allowed:\tff\nCpus_allowed_list:\t{machine.allowed}\n"
    files["proc/meminfo"] = f"MemTotal:       {machine.memory_kib} kB\nMemFree:  1 kB\n"
    files["proc/self/limits"] = (
        "Limit                     Soft Limit           Hard Limit           Units\n"
        f"Max address space         {machine.address_space}            unlimited            bytes\n"
    )
    system = "sys/devices/system"
    if machine.cpus:
        files.setdefault(f"{system}/cpu/online", cpu_list(tuple(machine.cpus)))
    for number, cpu in machine.cpus.items():
        folder = f"{system}/cpu/cpu{number}"
        files[f"{folder}/topology/thread_siblings_list"] = cpu.siblings
        files[f"{folder}/topology/physical_package_id"] = str(cpu.package)
        package = tuple(each for each, other in machine.cpus.items() if other.package == cpu.package)
        files[f"{folder}/topology/core_siblings_list"] = cpu_list(package)
        caches = [("1", "Data", cpu.siblings), ("1", "Instruction", cpu.siblings), ("2", "Unified", cpu.l2)]
        caches += [("3", "Unified", cpu.l3)] if cpu.l3 else []
        caches = caches if machine.tells_caches else []
        for index, (level, kind, shared) in enumerate(caches):
            files[f"{folder}/cache/index{index}/level"] = level
            files[f"{folder}/cache/index{index}/type"] = kind
            files[f"{folder}/cache/index{index}/shared_cpu_list"] = shared
        if cpu.capacity is not None:
            files[f"{folder}/cpu_capacity"] = str(cpu.capacity)
    for node, cpus in machine.nodes.items():
        files[f"{system}/node/node{node}/cpulist"] = cpus
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


def epyc(allowed: str = "0-31", **extra: str) -> Machine:
    """Two sockets of 8 cores with two threads each; 4 cores share an L3. Threads are numbered as Linux does: 0, 16."""
    cpus = {}
    for number in range(32):
        core = number % 16
        start = core // 4 * 4
        l3 = f"{start}-{start + 3},{start + 16}-{start + 19}"
        cpus[number] = Cpu(f"{core},{core + 16}", f"{core},{core + 16}", l3, package=core // 8)
    return Machine(cpus, {0: "0-7,16-23", 1: "8-15,24-31"}, allowed, extra=extra)


def hybrid() -> Machine:
    """Intel: 2 fast cores with two threads each (0-3), 4 slow ones (4-7) that share an L2; one L3."""
    cpus = {number: Cpu(f"{number // 2 * 2}-{number // 2 * 2 + 1}", f"{number // 2 * 2}", "0-7") for number in range(4)}
    cpus |= {number: Cpu(str(number), "4-7", "0-7") for number in range(4, 8)}
    kinds = {"sys/devices/cpu_core/cpus": "0-3", "sys/devices/cpu_atom/cpus": "4-7"}
    return Machine(cpus, {0: "0-7"}, "0-7", extra=kinds)


def container(quota: str = "150000 100000", allowed: str = "0-7", **files: str) -> Machine:
    """8 plain cores, cgroup v2 with a namespace: the process is in the root of what it sees."""
    cpus = {number: Cpu(str(number), str(number), "0-7") for number in range(8)}
    extra = {"proc/self/mountinfo": V2, "proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": quota, **files}
    return Machine(cpus, {0: "0-7"}, allowed, extra=extra)


V1 = "\n".join(
    [
        "32 31 0:29 /docker/abc /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct",
        "33 31 0:30 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory",
        "34 31 0:31 /docker/abc /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset",
        "35 31 0:32 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw",
    ]
)


def large_epyc(per_socket: int = 1) -> Machine:
    """Two EPYC 7543: 32 cores each with two threads, 8 under an L3. NPS1 makes a node of a socket, NPS4 four."""
    cpus = {}
    for number in range(128):
        core = number % 64
        siblings, start = f"{core},{core + 64}", core // 8 * 8
        cpus[number] = Cpu(siblings, siblings, f"{start}-{start + 7},{start + 64}-{start + 71}", package=core // 32)
    size = 32 // per_socket
    nodes = {
        node: f"{first}-{first + size - 1},{first + 64}-{first + 63 + size}"
        for node, first in enumerate(range(0, 64, size))
    }
    return Machine(cpus, nodes, "0-127", memory_kib=512 << 20)


def interleaved_xeon() -> Machine:
    """Two sockets whose firmware counts cores in turn (even ones on socket 0), sub-NUMA clusters, two threads a core.

    Each L3 spans a socket, and each socket is two nodes; node 4 is memory without a CPU (CXL).
    """
    cpus = {}
    for number in range(32):
        core, package = number % 16, number % 2
        siblings = f"{core},{core + 16}"
        cpus[number] = Cpu(siblings, siblings, ",".join(str(each) for each in range(package, 32, 2)), package=package)
    clusters = {0: [0, 2, 4, 6], 1: [8, 10, 12, 14], 2: [1, 3, 5, 7], 3: [9, 11, 13, 15]}
    nodes = {node: cpu_list((*each, *(core + 16 for core in each))) for node, each in clusters.items()}
    return Machine(cpus, {**nodes, 4: ""}, "0-31")


def alder_lake() -> Machine:
    """Core i7-12700H: 6 fast cores with two threads (0-11), 8 slow ones in two clusters that share an L2 each."""
    fast = {n: Cpu(cpu_list((n & ~1, n | 1)), cpu_list((n & ~1, n | 1)), "0-19") for n in range(12)}
    slow = {n: Cpu(str(n), "12-15" if n < 16 else "16-19", "0-19") for n in range(12, 20)}
    kinds = {"sys/devices/cpu_core/cpus": "0-11", "sys/devices/cpu_atom/cpus": "12-19"}
    return Machine({**fast, **slow}, {0: "0-19"}, "0-19", extra=kinds)


def graviton() -> Machine:
    """64 Arm cores, one thread each. The guest's kernel is told of no caches; every CPU has the full capacity."""
    cpus = {n: Cpu(str(n), str(n), None, capacity=1024) for n in range(64)}
    return Machine(cpus, {0: "0-63"}, "0-63", tells_caches=False, memory_kib=128 << 20)


def kunpeng() -> Machine:
    """128 Arm cores in four nodes with an L3 each; firmware calls the two packages 36 and 8442."""
    cpus = {
        n: Cpu(str(n), str(n), f"{n // 32 * 32}-{n // 32 * 32 + 31}", package=36 if n < 64 else 8442)
        for n in range(128)
    }
    return Machine(cpus, {node: f"{32 * node}-{32 * node + 31}" for node in range(4)}, "0-127")


def superchip() -> Machine:
    """NVIDIA GB10: two clusters of five slow and five fast cores; of the fast ones each has a capacity of its own."""
    kinds = [718] * 5 + [997] * 5 + [731] * 5 + [1017] * 4 + [1024]
    cpus = {n: Cpu(str(n), str(n), f"{n // 10 * 10}-{n // 10 * 10 + 9}", capacity=each) for n, each in enumerate(kinds)}
    return Machine(cpus, {0: "0-19"}, "0-19")


def offline() -> Machine:
    """A dual Xeon whose CPUs are counted in turn; 0-3 and all from 21 on are offline, and so is node 0."""
    cpus = {n: Cpu(str(n), str(n), cpu_list(tuple(range(4 + n % 2, 21, 2))), package=n % 2) for n in range(4, 21)}
    return Machine(cpus, {1: "5,7,9,11,13,15,17,19"}, "0-191")


def sparse() -> Machine:
    """Four packages of two dies; the firmware left gaps between the numbers of nodes."""
    cpus = {n: Cpu(str(n), str(n), f"{n // 6 * 6}-{n // 6 * 6 + 5}", package=n // 12) for n in range(48)}
    return Machine(
        cpus, {number: f"{6 * i}-{6 * i + 5}" for i, number in enumerate((0, 1, 2, 33, 34, 45, 72, 73))}, "0-47"
    )


def one_core() -> Machine:
    return Machine({0: Cpu("0", "0", "0")}, {0: "0"}, "0")


def container_v1() -> Machine:
    """Docker on a host of 8 cores with cgroups of the first version and no namespace of them: 2.5 cores of CPUs 2-5."""
    files = {
        "proc/self/mountinfo": V1,
        "proc/self/cgroup": "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n3:cpuset:/docker/abc\n0::/",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "250000",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": str(2 << 30),
        "sys/fs/cgroup/cpuset/cpuset.cpus": "2-5",
    }
    return container("max 100000", **files)


ALL = {
    "epyc": large_epyc,
    "epyc_nps4": lambda: large_epyc(per_socket=4),
    "interleaved_xeon": interleaved_xeon,
    "alder_lake": alder_lake,
    "graviton": graviton,
    "kunpeng": kunpeng,
    "superchip": superchip,
    "offline": offline,
    "sparse": sparse,
    "one_core": one_core,
    "container": container,
    "container_v1": container_v1,
}
