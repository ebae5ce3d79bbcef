"""What `slabwire doctor` looks at. `judge_...` are pure, `probe_...` try the thing itself; `examine` does both."""

from __future__ import annotations

import mmap
import os
import platform
import resource
import stat
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from ...runtime.host.ownership import name_of
from ...runtime.host.topology import Topology
from ..settings import BadSettings
from .surroundings import Finding, State, examine_surroundings

# sockaddr_un holds 108 bytes with the closing NUL (unix(7)).
LONGEST_SOCKET_PATH = 107
INGRESS_PORT = 8443
# A worker holds a descriptor for each segment and bell of its neighbours; the supervisor one for all of them.
FEWEST_OPEN_FILES, ROOMY_OPEN_FILES = 256, 1024
# The smallest graph has a few MiB of lanes and slabs; an actor may grow to 1 GiB unless `memory_bytes` says less.
LEAST_MEMORY, ROOMY_MEMORY = 64 << 20, 1 << 30
MADV_POPULATE_WRITE = 23  # linux/mman.h; Python's mmap does not name it


def examine(root: Path = Path("/"), port: int = INGRESS_PORT) -> list[Finding]:
    """All findings on this machine; reads and probes, changes nothing."""
    from ...runtime.host.run_directory import base_directory
    from ...shm.huge_pages import obstacle
    from ...shm.limits import memory_limits

    base = base_directory()
    tightest = memory_limits(root)[0]
    return [
        judge_architecture(platform.machine(), sys.platform),
        judge_python(sys.version_info[:3]),
        judge_cores(Topology.read(root)),
        judge_memory(tightest.available_nbytes, tightest.setting),
        judge_open_files(*resource.getrlimit(resource.RLIMIT_NOFILE)),
        *examine_surroundings(root, base, port),
        judge_run_directory(base),
        judge_socket_path(base),
        _probe(
            "memfd_create",
            "a kernel of 3.17 or later, and a sandbox that allows memfd_create",
            os.memfd_create,
            "slabwire:doctor",
            os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING,
        ),
        _probe("eventfd", "a sandbox that allows eventfd2", os.eventfd, 0, os.EFD_CLOEXEC | os.EFD_NONBLOCK),
        _probe(
            "pidfd",
            "a kernel of 5.3 or later, and a sandbox that allows pidfd_open",
            os.pidfd_open,
            os.getpid(),
        ),
        probe_membarrier(),
        probe_populate(),
        judge_huge_pages(obstacle(root)),
        probe_zeromq(),
        judge_package("onnxruntime", "slabwire[inference]", "actors that run ONNX models"),
    ]


def judge_architecture(machine: str, system: str) -> Finding:
    """Linux it must be; x86-64 is what is tested."""
    if system != "linux":
        return Finding("system", "broken", f"{system} on {machine}", "use Linux: memfd, pidfd and eventfd are its own")
    if machine == "x86_64":
        return Finding("system", "ok", f"Linux {platform.release()} on {machine}")
    fix = "the order of stores relies on membarrier here; expect it to work, and report what does not"
    return Finding("system", "note", f"Linux on {machine}, where slabwire is untested", fix)


def judge_python(version: tuple[int, ...]) -> Finding:
    """The interpreter's version."""
    text = ".".join(map(str, version))
    if version < (3, 11):
        return Finding("python", "broken", text, "install Python 3.11 or later")
    return Finding("python", "ok", text)


def judge_cores(topology: Topology) -> Finding:
    """Two cores are the least on which two workers can spin for each other."""
    text = topology.describe()
    if topology.whole_cores >= 2:
        return Finding("cores", "ok", text)
    cause = "CPU quota" if topology.quota is not None and len(topology.cores) > 1 else "cpuset or affinity"
    fix = f"workers share one core and cannot spin, so each hop costs a wake-up; raise the {cause} to 2 cores or more"
    return Finding("cores", "note", text, fix)


def judge_memory(available: int, setting: str) -> Finding:
    """What the tightest limit leaves."""
    text = f"{max(0, available) >> 20} MiB may still be taken ({setting})"
    if available < LEAST_MEMORY:
        return Finding("memory", "broken", text, f"raise that limit: {LEAST_MEMORY >> 20} MiB is the least")
    if available < ROOMY_MEMORY:
        return Finding(
            "memory", "note", text, "raise that limit, or give actors less: graph.add(..., memory_bytes=...)"
        )
    return Finding("memory", "ok", text)


def judge_open_files(soft: int, hard: int) -> Finding:
    """RLIMIT_NOFILE; -1 is no limit."""
    unlimited = soft == resource.RLIM_INFINITY
    text = "unlimited" if unlimited else f"{soft} (may be raised to {'any' if hard < 0 else hard})"
    if unlimited or soft >= ROOMY_OPEN_FILES:
        return Finding("open files", "ok", text)
    state: State = "broken" if soft < FEWEST_OPEN_FILES else "note"
    return Finding("open files", state, text, f"ulimit -n {4 * ROOMY_OPEN_FILES} (LimitNOFILE= of a systemd unit)")


def judge_run_directory(base: Path) -> Finding:
    """The directory may not exist yet; then the nearest one that does must let us make it."""
    name = "run directory"
    remedy = "set SLABWIRE_RUN_DIR to a directory of your own"
    nearest = next(each for each in (base, *base.parents) if os.path.lexists(each))
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        return Finding(name, "broken", f"{base}: {nearest} is not a directory that you may write to", remedy)
    if nearest != base:
        return Finding(name, "ok", f"{base} (made by the first graph)")
    status = base.lstat()
    if stat.S_ISLNK(status.st_mode):
        return Finding(name, "broken", f"{base} is a link, which may lead anywhere", remedy)
    if status.st_uid != os.geteuid():
        return Finding(name, "broken", f"{base} belongs to {name_of(status.st_uid)}", remedy)
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077:
        return Finding(name, "broken", f"{base} has mode {mode:04o}: others may enter it", f"chmod 700 {base}")
    return Finding(name, "ok", f"{base}, mode {mode:04o}")


def judge_socket_path(base: Path) -> Finding:
    """How much of a Unix socket's path the run directory leaves for the name of a graph."""
    room = LONGEST_SOCKET_PATH - len(os.fsencode(base)) - len("//control")
    text = f"names of graphs may have {max(0, room)} bytes below {base}"
    if room >= 32:
        return Finding("socket path", "ok", text)
    state: State = "broken" if room < 8 else "note"
    return Finding("socket path", state, text, "set SLABWIRE_RUN_DIR to a shorter path: a Unix socket's has 107 bytes")


def judge_package(name: str, extra: str, purpose: str) -> Finding:
    """An optional package: its absence is worth a note."""
    if find_spec(name) is not None:
        return Finding(name, "ok", "installed")
    return Finding(name, "note", "not installed", f"for {purpose}: pip install '{extra}'")


def judge_settings(file: str, error: Exception | None) -> Finding:
    """The file that defaults of options come from."""
    if error is None:
        return Finding("settings", "ok", file or "no file of settings here")
    problem, remedy = (error.problem, error.remedy) if isinstance(error, BadSettings) else (str(error), "")
    return Finding("settings", "broken", problem, remedy or "mend that file")


def probe_membarrier() -> Finding:
    """The fence of whoever parks."""
    from ...shm.fence import full_barrier, register

    if register() and full_barrier():
        return Finding("membarrier", "ok", "GLOBAL_EXPEDITED works")
    fix = "parked workers wake up every few milliseconds instead; use a kernel of 4.16 or later, allow membarrier"
    return Finding("membarrier", "note", "refused by the kernel or a sandbox", fix)


def probe_populate() -> Finding:
    """Whether pages can be mapped before their first use."""
    with mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_SHARED) as mapping:
        try:
            mapping.madvise(MADV_POPULATE_WRITE)
        except OSError as error:
            fix = "nothing to do: pages are mapped at their first use; kernels from 5.14 on do it ahead"
            return Finding("populate", "note", f"MADV_POPULATE_WRITE: {error.strerror}", fix)
    return Finding("populate", "ok", "MADV_POPULATE_WRITE works")


def judge_huge_pages(obstacle: str | None) -> Finding:
    """Whether actors that ask for huge pages get them."""
    if obstacle is None:
        return Finding("huge pages", "ok", "given to actors with huge_pages=True")
    fix = "only actors with huge_pages=True miss them: echo advise > /sys/kernel/mm/transparent_hugepage/shmem_enabled"
    return Finding("huge pages", "note", obstacle, fix)


def probe_zeromq() -> Finding:
    """The transports that the control plane needs."""
    import zmq

    text = f"ZeroMQ {zmq.zmq_version()}, pyzmq {zmq.__version__}"
    if not zmq.has("ipc"):
        return Finding("zeromq", "broken", f"{text} without ipc", "pip install --force-reinstall pyzmq")
    if not zmq.has("curve"):
        fix = "only loopback addresses can be listened on; pip install --force-reinstall pyzmq brings CURVE"
        return Finding("zeromq", "note", f"{text} without CURVE", fix)
    return Finding("zeromq", "ok", text)


def _probe(name: str, needs: str, opened: Callable[..., int], *arguments: object) -> Finding:
    try:
        os.close(opened(*arguments))
    except OSError as error:
        return Finding(name, "broken", error.strerror or str(error), f"slabwire needs {needs}")
    return Finding(name, "ok", "works")
