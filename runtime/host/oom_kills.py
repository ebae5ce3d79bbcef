"""Whether the kernel killed a process for memory: what its control group and the machine count of such kills."""

from __future__ import annotations

from pathlib import Path

from ...shm.cgroup import memory_group, read_text

ROOT = Path("/")


class KillCounts:
    """The counters that concern one process, read while it lives, and once more when it is dead.

    The kernel counts kills, not who was killed: one that came shortly before a death by SIGKILL is taken for its cause.
    """

    def __init__(self, root: Path = ROOT) -> None:
        self._root = root
        self._group: Path | None = None
        self._in_group = 0
        self._in_machine = -1

    def look(self, pid: int, in_machine: int) -> None:
        """While the process lives; `in_machine` is what `kills_in_machine` gives now."""
        if in_machine != self._in_machine:
            self._in_machine = in_machine
            self._group = memory_group(self._root, pid)
            self._in_group = self._count()

    def rose(self) -> str | None:
        """Which limit the kernel has killed for since the last look; None if it has not killed."""
        killed = self._count() - self._in_group
        if killed > 0:
            return f"the memory limit of {self._group} was reached"
        if kills_in_machine(self._root) > self._in_machine:
            return f"by another limit than that of {self._group}, or the machine had no memory left"
        return None

    def _count(self) -> int:
        """v2 counts in memory.events, v1 in memory.oom_control."""
        names = ("memory.events", "memory.oom_control")
        return 0 if self._group is None else max(_kills(self._group / name) for name in names)


def kills_in_machine(root: Path = ROOT) -> int:
    """All processes that the kernel has killed for memory, in all groups, since it was started."""
    return _kills(root / "proc/vmstat")


def _kills(path: Path) -> int:
    for line in read_text(path).splitlines():
        name, _, value = line.partition(" ")
        if name == "oom_kill" and value.strip().isdigit():
            return int(value)
    return 0
