"""Whether the kernel killed a process for memory: what its control group and the machine count of such kills."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from ...shm.cgroup import memory_group, read_text

ROOT = Path("/")
_OOM_KILL = re.compile(r"^oom_kill +(\d+)\s*$", re.MULTILINE)
# A process that the kernel has chosen is dead as soon as its memory is given back.
_DIES_WITHIN_S = 5.0


@dataclass(frozen=True)
class _Look:
    """What the counters were at a time: that of the process's group, and that of all groups together."""

    at_s: float
    group: Path | None
    in_group: int
    in_machine: int


class KillCounts:
    """The counters that concern one process, read while it lives, and once more when it is dead.

    The kernel counts kills, not who was killed: one that came shortly before a death by SIGKILL is taken for its cause.
    It counts before the process is dead, so looks of the last seconds are kept beside the one before them.
    """

    def __init__(self, root: Path = ROOT, clock: Callable[[], float] = monotonic) -> None:
        self._root, self._clock = root, clock
        self._looks: list[_Look] = []

    def look(self, pid: int, in_machine: int) -> None:
        """While the process lives; `in_machine` is what `kills_in_machine` gives now."""
        if self._looks and self._looks[-1].in_machine == in_machine:
            return
        group = memory_group(self._root, pid)
        self._looks.append(_Look(self._clock(), group, _kills_in(group), in_machine))
        self._forget()

    def rose(self) -> str | None:
        """Which limit the kernel has killed for shortly before now; None if it has not killed."""
        if not self._looks:
            return None
        self._forget()
        before = self._looks[0]
        if _kills_in(before.group) > before.in_group:
            return f"the memory limit of {before.group} was reached"
        if kills_in_machine(self._root) > before.in_machine:
            return f"by another limit than that of {before.group}, or the machine had no memory left"
        return None

    def _forget(self) -> None:
        """Looks that a later one has replaced for so long that a process chosen between them would be dead."""
        long_ago_s = self._clock() - _DIES_WITHIN_S
        while len(self._looks) > 1 and self._looks[1].at_s < long_ago_s:
            del self._looks[0]


def _kills_in(group: Path | None) -> int:
    """v2 counts in memory.events, v1 in memory.oom_control."""
    names = ("memory.events", "memory.oom_control")
    return 0 if group is None else max(_kills(group / name) for name in names)


def kills_in_machine(root: Path = ROOT) -> int:
    """All processes that the kernel has killed for memory, in all groups, since it was started."""
    return _kills(root / "proc/vmstat")


def _kills(path: Path) -> int:
    found = _OOM_KILL.search(read_text(path))
    return int(found[1]) if found is not None else 0
