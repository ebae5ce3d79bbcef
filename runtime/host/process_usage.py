"""What a process uses, as the kernel says: 0 where it is gone."""

from __future__ import annotations

import os
from collections.abc import Iterable

from ...shm.cgroup import read_text

_TICKS = os.sysconf("SC_CLK_TCK")


def pss_nbytes(pid: int) -> int:
    """The memory of a process, what it shares counted by shares; 0 if it is gone."""
    try:
        with open(f"/proc/{pid}/smaps_rollup") as rollup:
            found = [line for line in rollup if line.startswith("Pss:")]
    except OSError:
        return 0
    return int(found[0].split()[1]) * 1024 if found else 0


def pss_of(pids: Iterable[int]) -> dict[int, int]:
    """The memory of each of some processes. The kernel walks all of it: some 15 ms for a gigabyte."""
    return {pid: pss_nbytes(pid) for pid in pids if pid}


def cpu_s(pid: int) -> float:
    """User and system time of a process so far; 0 if it is gone."""
    fields = stat_fields(pid)
    return (int(fields[11]) + int(fields[12])) / _TICKS if fields else 0.0


def is_stopped(pid: int) -> bool:
    """Whether the kernel does not run a process, since a signal stopped it."""
    return stat_fields(pid)[:1] == ["T"]


def stat_fields(pid: int) -> list[str]:
    """What /proc/PID/stat has of a process, from its state (field 3 of proc(5)) on; nothing if it is gone."""
    return read_text(f"/proc/{pid}/stat").rpartition(")")[2].split()
