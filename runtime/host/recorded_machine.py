"""A machine on disk: the few files of /proc and /sys that a topology is read from, copied to plan for it elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ...shm.cgroup import limit_files, read_text
from ..errors import SlabwireError
from .topology import Topology

# Of which only the lines that begin so, or (mounts) hold it: the rest is nobody's business.
_LINES = {
    "proc/self/status": "Cpus_allowed_list:",
    "proc/self/limits": "Max address space",
    "proc/self/cgroup": "",
    "proc/self/mountinfo": " - cgroup",
    "proc/meminfo": "MemTotal:",
}
_CPU = "sys/devices/system/cpu/cpu[0-9]*"
_PATTERNS = (
    "sys/devices/system/cpu/online",
    f"{_CPU}/cpu_capacity",
    *(f"{_CPU}/topology/{name}" for name in ("core_cpus_list", "thread_siblings_list", "physical_package_id")),
    *(f"{_CPU}/topology/{name}" for name in ("package_cpus_list", "core_siblings_list")),
    *(f"{_CPU}/cache/index[0-9]*/{name}" for name in ("level", "type", "shared_cpu_list")),
    "sys/devices/system/node/node[0-9]*/cpulist",
    "sys/devices/cpu_core/cpus",
    "sys/devices/cpu_atom/cpus",
)
# The largest machines have some thousand CPUs with two dozen files each; lists of them have some KiB.
_MOST_FILES = 200_000
_LONGEST_TEXT = 64 << 10


class MachineError(SlabwireError, ValueError):
    """A folder that holds no recorded machine, or cannot take one."""

    code = "machine"


def read_machine(folder: Path) -> Topology:
    """The topology of a recorded machine. Raises MachineError."""
    if not any((folder / each).is_dir() for each in ("sys/devices/system/cpu", "proc/self")):
        raise MachineError(
            f"{folder} holds no recorded machine: neither sys/devices/system/cpu nor proc/self is in it; "
            "`slabwire plan --record` makes such a folder"
        )
    try:
        return Topology.read(folder)
    except ValueError as error:
        raise MachineError(f"{folder} was not recorded from a machine: {error}") from error


def record_machine(folder: Path, root: Path = Path("/")) -> int:
    """Copies what `Topology.read(root)` reads into a new folder; returns how many files. Raises MachineError."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise MachineError(f"{folder} is there already and not an empty folder; name another")
    count = 0
    try:
        for count, (name, text) in enumerate(_texts(root), 1):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n", encoding="utf-8")
            if count > _MOST_FILES:
                raise MachineError(f"{root} has more than {_MOST_FILES} files that describe CPUs")
    except OSError as error:
        raise MachineError(f"{folder} cannot be written: {error.strerror}") from error
    return count


def _texts(root: Path) -> Iterator[tuple[Path, str]]:
    for name, mark in _LINES.items():
        lines = [line for line in read_text(root / name).splitlines() if mark in line]
        if lines:
            yield Path(name), "\n".join(lines)
    groups = dict.fromkeys(limit_files(root))
    for path in (*groups, *(path for pattern in _PATTERNS for path in sorted(root.glob(pattern)))):
        text = read_text(path)
        if text:
            yield path.relative_to(root), text[:_LONGEST_TEXT]
