"""What `slabwire doctor` looks at around a graph: control groups, clock of the cores, TLS, ports, disk, processes."""

from __future__ import annotations

import errno
import os
import re
import resource
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ...runtime.host import kernel_tls
from ...runtime.host.libssl import LOST
from ...shm.cgroup import CgroupLimits, read_limits, read_text

# A worker has a handful of threads: its own, ZeroMQ's two, and those of its libraries.
_FEWEST_PROCESSES, _ROOMY_PROCESSES = 64, 512
_LEAST_DISK, _ROOMY_DISK = 1 << 20, 64 << 20
_LOWEST_PRIVILEGED_PORT = "proc/sys/net/ipv4/ip_unprivileged_port_start"


State = Literal["ok", "note", "broken"]


@dataclass(frozen=True)
class Finding:
    """One check: what was found, and what mends it. A "note" works, but less well or untested."""

    name: str
    state: State
    found: str
    fix: str = ""


def examine_surroundings(root: Path, base: Path, port: int) -> Iterator[Finding]:
    """Reads, and binds a port for a moment; changes nothing."""
    import ssl

    yield judge_cgroup(cgroup_version(root), read_limits(root))
    yield judge_governors(read_governors(root))
    yield judge_processes(process_limit(root))
    nearest = next(each for each in (base, *base.parents) if each.exists())
    disk = os.statvfs(nearest)
    yield judge_disk(base, disk.f_bavail * disk.f_frsize)
    yield judge_libssl(*find_libssl(), ssl.OPENSSL_VERSION, ssl.HAS_TLSv1_3)
    yield judge_kernel_tls(kernel_tls.why_not())
    yield judge_port(port, try_port(port), int(read_text(root / _LOWEST_PRIVILEGED_PORT) or 1024))


def cgroup_version(root: Path) -> str:
    """The mounted ones: v2, v1, or "v1 and v2"; empty where none is."""
    kinds = {line.partition(" - ")[2].split(" ")[0] for line in read_text(root / "proc/self/mountinfo").splitlines()}
    return " and ".join(name for kind, name in (("cgroup", "v1"), ("cgroup2", "v2")) if kind in kinds)


def judge_cgroup(version: str, limits: CgroupLimits) -> Finding:
    """What the control groups allow, and whether a reason of a kill can be read from them."""
    quota = "no CPU quota" if limits.cpu_quota is None else f"CPU quota of {limits.cpu_quota:g} cores"
    memory = "no memory limit" if limits.memory_bytes is None else f"memory limit of {limits.memory_bytes >> 20} MiB"
    if not version:
        fix = "kills for want of memory are told from the machine's count: mount -t cgroup2 none /sys/fs/cgroup"
        return Finding("cgroup", "note", "none is mounted", fix)
    text = f"{version}, {quota}, {memory}"
    if limits.cpu_quota is not None and limits.cpu_quota != int(limits.cpu_quota):
        fix = (
            "a worker of the last, partly paid core is throttled: docker run --cpus N, or CPUQuota=N00% with a whole N"
        )
        return Finding("cgroup", "note", text, fix)
    return Finding("cgroup", "ok", text)


def read_governors(root: Path) -> list[str]:
    """How the kernel sets the clock of each CPU, where it does."""
    paths = (root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_governor")
    return [text for text in map(read_text, sorted(paths)) if text]


def judge_governors(governors: list[str]) -> Finding:
    """A clock that is raised only under load makes the first message after a pause slow."""
    name = "CPU governor"
    if not governors:
        return Finding(name, "ok", "the clock is not set from here (a virtual machine, or the firmware does it)")
    kinds = sorted(set(governors))
    text = f"{', '.join(kinds)} on {len(governors)} CPUs"
    if kinds == ["performance"]:
        return Finding(name, "ok", text)
    fix = "for even latencies: echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"
    return Finding(name, "note", text, fix)


def process_limit(root: Path) -> tuple[int | None, str]:
    """The fewest processes and threads that some limit allows, and the limit; None: no limit."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    # The kernel does not hold root to it.
    limits = [(soft, "ulimit -u")] if soft != resource.RLIM_INFINITY and os.getuid() else []
    group = re.search(r"^0::(/.*)$", read_text(root / "proc/self/cgroup"), re.MULTILINE)
    for place in (group[1].lstrip("/") if group else "", ""):
        text = read_text(root / "sys/fs/cgroup" / place / "pids.max")
        if text.isdigit():
            limits.append((int(text), "pids.max of the cgroup"))
    return min(limits, default=(None, ""))


def judge_processes(limit: tuple[int | None, str]) -> Finding:
    """Each worker is a process with some threads."""
    most, setting = limit
    if most is None:
        return Finding("processes", "ok", "as many as the machine allows")
    text = f"{most} processes and threads ({setting})"
    state: State = "broken" if most < _FEWEST_PROCESSES else "note" if most < _ROOMY_PROCESSES else "ok"
    raised = (
        f"ulimit -u {8 * _ROOMY_PROCESSES}"
        if setting == "ulimit -u"
        else f"docker run --pids-limit {8 * _ROOMY_PROCESSES}"
    )
    return Finding("processes", state, text, "" if state == "ok" else f"{raised} (TasksMax= of a systemd unit)")


def judge_disk(base: Path, free_nbytes: int) -> Finding:
    """Logs and reports lie there; without room they are lost, and nothing can be started."""
    text = f"{free_nbytes >> 20} MiB are free for logs below {base}"
    state: State = "broken" if free_nbytes < _LEAST_DISK else "note" if free_nbytes < _ROOMY_DISK else "ok"
    return Finding(
        "disk", state, text, "" if state == "ok" else f"make room (df {base}), or set SLABWIRE_RUN_DIR to another disk"
    )


def find_libssl() -> tuple[str, str]:
    """The version of the system's libssl, else why none can be used."""
    from ...runtime.host.libssl import LibsslMissing, open_libssl, version_of

    try:
        return version_of(open_libssl()), ""
    except LibsslMissing as error:
        return "", str(error)


def judge_libssl(version: str, missing: str, of_python: str, has_tls13: bool) -> Finding:
    """What the ingress terminates TLS with: the system's libssl, else the one behind Python's `ssl`."""
    if version:
        return Finding("libssl", "ok", version)
    if not has_tls13:
        fix = "the ingress needs TLS 1.3: install OpenSSL 3, or use a Python that is built with 1.1.1 or later"
        return Finding("libssl", "note", f"{missing}; Python's ssl is {of_python} without TLS 1.3", fix)
    fix = f"install OpenSSL 3 (libssl3): an ingress works without it, but {', '.join(LOST.values())}"
    return Finding("libssl", "note", f"{missing}; Python's ssl is {of_python}", fix)


def judge_kernel_tls(refusal: str) -> Finding:
    """Whether the kernel could encrypt what an ingress sends. An ingress has libssl do it in either case."""
    text = refusal or "offered, and not used: libssl would send from memory that has moved"
    return Finding("kernel TLS", "ok", text)


def try_port(port: int) -> int:
    """0 where a server could listen on the loopback address, else the errno."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            return error.errno or errno.EINVAL
    return 0


def judge_port(port: int, error: int, lowest: int) -> Finding:
    """The port that an ingress would listen on."""
    name = "port"
    if not error:
        return Finding(name, "ok", f"{port} is free")
    if error == errno.EADDRINUSE:
        fix = (
            f"see who listens: ss -ltnp 'sport = :{port}'; or choose another, for the chat service with PORT={port + 1}"
        )
        return Finding(name, "note", f"{port} is taken", fix)
    if error == errno.EACCES and port < lowest:
        fix = f"sudo sysctl net.ipv4.ip_unprivileged_port_start={port}, or choose one from {lowest} on"
        return Finding(name, "note", f"{port} is for root", fix)
    return Finding(name, "note", f"{port}: {os.strerror(error)}", "choose another port: slabwire doctor --port PORT")
