"""Time and memory of a process, as the kernel counts them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ...runtime.host.cpu_load import cpu_times
from ...runtime.launch.running import Running
from .contestant import BenchError


@dataclass(frozen=True)
class Clock:
    """Nanoseconds so far, of all threads that a process has now (/proc/PID/task/TID/schedstat).

    `ran_ns` is CPU time, which /proc/PID/stat counts by ticks of 10 ms; for `waited_ns` it could run, but others did.
    """

    ran_ns: int
    waited_ns: int

    @classmethod
    def of(cls, pid: int) -> Clock:
        """Raises BenchError for a process that is gone, and where the kernel does not count."""
        times = cpu_times(pid)
        if times is None:
            raise BenchError(
                f"the CPU time of process {pid} cannot be read: it has ended, or the kernel has no schedstat"
            )
        return cls(*times)

    def __sub__(self, before: Clock) -> Clock:
        return Clock(self.ran_ns - before.ran_ns, self.waited_ns - before.waited_ns)


@dataclass(frozen=True)
class Memory:
    """A process's memory in bytes, from /proc/PID/smaps_rollup (proc(5)).

    `pss` counts a shared page by 1/n for each of the n processes that map it, `rss` whole; `private` pages nobody else
    maps, `shared_clean` are pages of files that others map as well. `pss_files` is the part of `pss` that files have,
    which changes as other programs with the same libraries come and go.
    """

    rss: int
    pss: int
    pss_files: int
    private: int
    shared_clean: int
    shared_dirty: int

    @classmethod
    def of(cls, pid: int) -> Memory:
        """Raises BenchError for a process that is gone, or another user's."""
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
        except OSError as error:
            raise BenchError(f"the memory of process {pid} cannot be read: {error}") from error
        sizes = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}
        return cls(
            rss=sizes["Rss"],
            pss=sizes["Pss"],
            pss_files=sizes["Pss_File"],
            private=sizes["Private_Clean"] + sizes["Private_Dirty"],
            shared_clean=sizes["Shared_Clean"],
            shared_dirty=sizes["Shared_Dirty"],
        )


def mapped_files(pid: int) -> dict[str, int]:
    """How many bytes of address space each file takes in a process, memfds left out; {} for one that is gone."""
    files: dict[str, int] = {}
    try:
        lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    except OSError:
        return files
    for line in lines:
        place, *_, path = line.split(maxsplit=5)
        if path.startswith("/") and not path.startswith("/memfd:"):
            begin, end = (int(each, 16) for each in place.split("-"))
            files[path] = files.get(path, 0) + end - begin
    return files


@dataclass(frozen=True)
class Mapped:
    """Bytes of one mapping that are in memory, whole and by the process's share (/proc/PID/smaps, proc(5))."""

    rss: int
    pss: int


def mapped_inodes(pid: int) -> Iterator[tuple[int, Mapped]]:
    """What a process maps, memfds included, each with the inode of its file. Raises BenchError for one that is gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps").read_text().splitlines()
    except OSError as error:
        raise BenchError(f"the mappings of process {pid} cannot be read: {error}") from error
    inode, sizes = 0, dict[str, int]()
    for line in lines:
        words = line.split()
        if "-" in words[0]:
            inode, sizes = int(words[4]), {}
        elif words[0] in ("Rss:", "Pss:"):
            sizes[words[0]] = int(words[1]) * 1024
            if len(sizes) == 2:
                yield inode, Mapped(rss=sizes["Rss:"], pss=sizes["Pss:"])


def processes_of(running: Running) -> dict[str, int]:
    """All processes of a running graph: workers by name, the supervisor, and what else these have started."""
    named = {each["name"]: each["pid"] for each in running.status()["workers"]}
    rest = {f"process {each}": each for each in descendants(running.pid) if each not in named.values()}
    return {**named, "supervisor": running.pid, **rest}


def descendants(pid: int) -> list[int]:
    """Children, their children and so on (/proc/PID/task/TID/children of proc(5)); none of a process that is gone."""
    children: list[int] = []
    try:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            children += [int(each) for each in (thread / "children").read_text().split()]
    except OSError:
        return children
    return [*children, *(found for each in children for found in descendants(each))]
