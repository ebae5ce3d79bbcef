"""How much CPU time workers take, and how much they wait for it, as the kernel counts both."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

from ..errors import StartError


class CpuTimes(NamedTuple):
    """Nanoseconds of all threads that a process has now: on a CPU, and runnable while others had it."""

    ran_ns: int
    waited_ns: int


def cpu_times(pid: int) -> CpuTimes | None:
    """From /proc/PID/task/*/schedstat; None for a process that is gone, or where the kernel does not count."""
    ran = waited = 0
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/schedstat", "rb", buffering=0) as schedstat:
                words = schedstat.read(96).split()
            ran, waited = ran + int(words[0]), waited + int(words[1])
    except (OSError, IndexError, ValueError):
        return None
    return CpuTimes(ran, waited)


def demand_counts() -> None:
    """Raises StartError where the kernel does not count who waits for a CPU."""
    if cpu_times(os.getpid()) is None:
        raise StartError(
            "rebalancing reads /proc/PID/task/*/schedstat, which this kernel does not have (CONFIG_SCHED_INFO); "
            "run the graph without it"
        )


class LoadMeter:
    """Looks now and then, and tells what was between two looks. Time is an argument, in seconds."""

    def __init__(self) -> None:
        self._before: dict[str, tuple[int, CpuTimes]] = {}
        self._looked_s = 0.0

    def demands(self, pids: Mapping[str, int], now_s: float) -> dict[str, float]:
        """Cores' worth of CPU time that each process wanted since the last look, whether it got it or not.

        One that was not there then is left out: a worker that has started again, or a thread's end in between.
        """
        elapsed_ns = (now_s - self._looked_s) * 1e9
        self._looked_s = now_s
        before, self._before = self._before, {}
        found = {}
        for name, pid in pids.items():
            times = cpu_times(pid) if pid else None
            if times is None:
                continue
            self._before[name] = pid, times
            old_pid, old = before.get(name, (0, times))
            wanted = times.ran_ns + times.waited_ns - old.ran_ns - old.waited_ns
            if old_pid == pid and wanted >= 0 and elapsed_ns > 0:
                found[name] = wanted / elapsed_ns
        return found
