"""Topologies read from recorded /proc and /sys trees of machines that we do not have, and from this one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from machines import V1, Cpu, Machine, container, epyc, hybrid, record
from slabwire.runtime.host.topology import Topology
from slabwire.shm.cgroup import parse_cpu_list, read_limits


def test_two_sockets_with_smt(tmp_path: Path) -> None:
    topology = Topology.read(record(tmp_path, epyc()))
    assert [core.number for core in topology.cores] == list(range(16))
    assert topology.cores[5].cpus == (5, 21)
    assert [core.l3 for core in topology.cores] == [0] * 4 + [4] * 4 + [8] * 4 + [12] * 4
    assert [core.node for core in topology.cores] == [0] * 8 + [1] * 8
    assert {core.package for core in topology.cores} == {0, 1}
    assert topology.cpus == tuple(range(32))
    assert topology.usable_cores == topology.whole_cores == 16
    assert topology.describe().startswith("16 cores, 32 hardware threads, 4 L3s, 2 NUMA nodes")


def test_affinity_may_leave_one_thread_of_a_core(tmp_path: Path) -> None:
    topology = Topology.read(record(tmp_path, epyc(allowed="1,4-5,21")))
    assert [(core.number, core.cpus) for core in topology.cores] == [(1, (1,)), (4, (4,)), (5, (5, 21))]
    assert [core.l3 for core in topology.cores] == [0, 4, 4]


def test_hybrid_puts_fast_cores_first(tmp_path: Path) -> None:
    topology = Topology.read(record(tmp_path, hybrid()))
    assert [core.number for core in topology.cores] == [0, 2, 4, 5, 6, 7]
    assert [core.efficient for core in topology.cores] == [False, False, True, True, True, True]
    assert [core.l2 for core in topology.cores] == [0, 2, 4, 4, 4, 4]


def test_arm_capacities_tell_slow_cores(tmp_path: Path) -> None:
    capacities = [446, 446, 1024, 1024]
    cpus = {number: Cpu(str(number), str(number), None, capacity=each) for number, each in enumerate(capacities)}
    topology = Topology.read(record(tmp_path, Machine(cpus, {0: "0-3"}, "0-3")))
    assert [(core.number, core.efficient) for core in topology.cores] == [(2, False), (3, False), (0, True), (1, True)]
    assert {core.l3 for core in topology.cores} == {0}  # none is reported: one package is taken to share one


def test_one_core(tmp_path: Path) -> None:
    topology = Topology.read(record(tmp_path, Machine({0: Cpu("0", "0", "0")}, {0: "0"}, "0")))
    assert [core.cpus for core in topology.cores] == [(0,)]
    assert topology.describe().startswith("1 core, 1 L3, 1 NUMA node")


@pytest.mark.parametrize(
    ("quota", "usable", "whole"),
    [
        ("150000 100000", 2, 1),
        ("50000 100000", 1, 1),
        ("200000 100000", 2, 2),
        ("max 100000", 8, 8),
        ("3200000 100000", 8, 8),
    ],
)
def test_quota_of_a_container(tmp_path: Path, quota: str, usable: int, whole: int) -> None:
    topology = Topology.read(record(tmp_path, container(quota)))
    assert (topology.usable_cores, topology.whole_cores) == (usable, whole)
    assert len(topology.cores) == 8


def test_quota_of_a_group_above_binds_too(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/user.slice/job",
        "sys/fs/cgroup/user.slice/job/cpu.max": "400000 100000",
        "sys/fs/cgroup/user.slice/job/memory.max": "max",
        "sys/fs/cgroup/user.slice/cpu.max": "300000 100000",
        "sys/fs/cgroup/user.slice/memory.max": str(512 << 20),
    }
    topology = Topology.read(record(tmp_path, container("max 100000", **files)))
    assert topology.quota == 3.0
    assert (topology.memory_bytes, topology.memory_limited_by) == (512 << 20, "cgroup")


def test_v1_without_a_cgroup_namespace(tmp_path: Path) -> None:
    """The path in /proc/self/cgroup is the host's; the mount starts at the container's own group."""
    files = {
        "proc/self/mountinfo": V1,
        "proc/self/cgroup": "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n3:cpuset:/docker/abc\n0::/",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "250000",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": str(2 << 30),
        "sys/fs/cgroup/cpuset/cpuset.cpus": "2-5",
    }
    topology = Topology.read(record(tmp_path, container("max 100000", **files)))
    assert topology.quota == 2.5
    assert topology.cpus == (2, 3, 4, 5)
    assert (topology.memory_bytes, topology.memory_limited_by) == (2 << 30, "cgroup")


def test_v1_writes_no_limit_as_a_huge_number_and_minus_one(tmp_path: Path) -> None:
    files = {
        "proc/self/mountinfo": V1,
        "proc/self/cgroup": "5:cpu,cpuacct:/\n4:memory:/\n",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
    }
    limits = read_limits(record(tmp_path, container("max 100000", **files)))
    assert (limits.cpu_quota, limits.cpus, limits.memory_bytes) == (None, None, None)


def test_path_outside_the_namespace_means_the_mount(tmp_path: Path) -> None:
    machine = container("100000 100000", **{"proc/self/cgroup": "0::/../../elsewhere"})
    assert Topology.read(record(tmp_path, machine)).quota == 1.0


def test_cpuset_of_v2_cuts_the_affinity(tmp_path: Path) -> None:
    machine = container(**{"sys/fs/cgroup/cpuset.cpus.effective": "6-7"})
    assert Topology.read(record(tmp_path, machine)).cpus == (6, 7)


def test_offline_cpus_are_left_out(tmp_path: Path) -> None:
    machine = container(**{"sys/devices/system/cpu/online": "0-2"})
    assert Topology.read(record(tmp_path, machine)).cpus == (0, 1, 2)


def test_sources_that_contradict_each_other_leave_the_affinity(tmp_path: Path) -> None:
    machine = container(allowed="0-1", **{"sys/fs/cgroup/cpuset.cpus.effective": "6-7"})
    assert Topology.read(record(tmp_path, machine)).cpus == (0, 1)


def test_address_space_limit_counts_as_memory(tmp_path: Path) -> None:
    machine = container()
    machine.address_space = str(1 << 30)
    topology = Topology.read(record(tmp_path, machine))
    assert (topology.memory_bytes, topology.memory_limited_by) == (1 << 30, "RLIMIT_AS")


def test_without_sysfs_each_cpu_is_a_core(tmp_path: Path) -> None:
    topology = Topology.read(record(tmp_path, Machine({}, {}, "0-3")))
    assert [core.cpus for core in topology.cores] == [(0,), (1,), (2,), (3,)]
    assert len({core.l3 for core in topology.cores}) == 1


def test_nothing_at_all_is_one_core(tmp_path: Path) -> None:
    topology = Topology.read(tmp_path)
    assert topology.cpus == (0,)
    assert (topology.memory_bytes, topology.memory_limited_by) == (None, "unknown")


def test_this_machine() -> None:
    topology = Topology.read()
    assert set(topology.cpus) <= os.sched_getaffinity(0)
    assert topology.memory_bytes
    assert Topology.read() == topology


def test_no_core_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one core"):
        Topology(())


def test_cpu_lists() -> None:
    assert parse_cpu_list("0-2,8,10-11") == {0, 1, 2, 8, 10, 11}
    assert parse_cpu_list("") == frozenset()
    with pytest.raises(ValueError, match="invalid literal"):
        parse_cpu_list("a-b")
