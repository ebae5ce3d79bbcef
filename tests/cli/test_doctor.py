"""What the doctor says about machines that we do not have."""

from __future__ import annotations

import errno
import socket
from pathlib import Path

import pytest

from slabwire.cli.doctor.examination import (
    judge_architecture,
    judge_cores,
    judge_memory,
    judge_open_files,
    judge_package,
    judge_python,
    judge_run_directory,
    judge_socket_path,
    probe_membarrier,
    probe_populate,
    probe_zeromq,
)
from slabwire.cli.doctor.surroundings import (
    cgroup_version,
    find_libssl,
    judge_cgroup,
    judge_disk,
    judge_governors,
    judge_kernel_tls,
    judge_libssl,
    judge_port,
    judge_processes,
    process_limit,
    read_governors,
    try_port,
)
from slabwire.runtime.host.topology import Core, Topology
from slabwire.shm.cgroup import CgroupLimits


def cores(count: int, quota: float | None = None) -> Topology:
    return Topology(tuple(Core(number, (number,), number, 0) for number in range(count)), quota)


def test_architecture() -> None:
    assert judge_architecture("x86_64", "linux").state == "ok"
    assert judge_architecture("aarch64", "linux").state == "note"
    assert judge_architecture("arm64", "darwin").state == "broken"


def test_python() -> None:
    assert judge_python((3, 10, 4)).state == "broken"
    assert judge_python((3, 12, 0)).state == "ok"


def test_cores() -> None:
    assert judge_cores(cores(2)).state == "ok"
    assert judge_cores(cores(1)).state == "note"
    assert "CPU quota" in judge_cores(cores(8, 1.5)).fix


@pytest.mark.parametrize(("mebibytes", "state"), [(-1, "broken"), (32, "broken"), (512, "note"), (4096, "ok")])
def test_memory(mebibytes: int, state: str) -> None:
    finding = judge_memory(mebibytes << 20, "cgroup memory.max = 1")
    assert finding.state == state
    assert "memory.max" in finding.found


@pytest.mark.parametrize(("soft", "state"), [(64, "broken"), (512, "note"), (1024, "ok"), (-1, "ok")])
def test_open_files(soft: int, state: str) -> None:
    assert judge_open_files(soft, -1).state == state


def test_run_directory(tmp_path: Path) -> None:
    assert judge_run_directory(tmp_path / "not" / "yet").state == "ok"
    tmp_path.chmod(0o700)
    assert judge_run_directory(tmp_path).state == "ok"
    tmp_path.chmod(0o750)
    assert judge_run_directory(tmp_path).fix == f"chmod 700 {tmp_path}"
    (tmp_path / "file").touch()
    assert judge_run_directory(tmp_path / "file" / "below").state == "broken"


def test_socket_path() -> None:
    assert judge_socket_path(Path("/tmp/slabwire-1000")).state == "ok"
    assert judge_socket_path(Path("/tmp/" + "x" * 70)).state == "note"
    finding = judge_socket_path(Path("/tmp/" + "x" * 100))
    assert finding.state == "broken"
    assert "SLABWIRE_RUN_DIR" in finding.fix


def test_package() -> None:
    assert judge_package("json", "x", "y").state == "ok"
    assert judge_package("no_such_package_here", "slabwire[x]", "y").fix == "for y: pip install 'slabwire[x]'"


def test_probes_of_this_kernel_find_something() -> None:
    for finding in (probe_membarrier(), probe_populate(), probe_zeromq()):
        assert finding.found
        assert finding.state == "ok" or finding.fix


def test_cgroup() -> None:
    assert judge_cgroup("v2", CgroupLimits()).found == "v2, no CPU quota, no memory limit"
    limited = judge_cgroup("v1", CgroupLimits(2.0, None, 512 << 20))
    assert (limited.state, limited.found) == ("ok", "v1, CPU quota of 2 cores, memory limit of 512 MiB")
    assert "docker run --cpus" in judge_cgroup("v2", CgroupLimits(1.5)).fix
    assert judge_cgroup("", CgroupLimits()).state == "note"


def test_what_is_mounted(tmp_path: Path) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    mounts = tmp_path / "proc/self/mountinfo"
    assert cgroup_version(tmp_path) == ""
    mounts.write_text("30 1 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
    assert cgroup_version(tmp_path) == "v2"
    mounts.write_text("30 1 0:26 / /a rw - cgroup2 x rw\n31 1 0:27 / /b rw - cgroup cgroup rw,cpu\n")
    assert cgroup_version(tmp_path) == "v1 and v2"


def test_governors(tmp_path: Path) -> None:
    assert judge_governors(read_governors(tmp_path)).state == "ok"
    for number, governor in enumerate(("performance", "powersave")):
        folder = tmp_path / f"sys/devices/system/cpu/cpu{number}/cpufreq"
        folder.mkdir(parents=True)
        (folder / "scaling_governor").write_text(f"{governor}\n")
    found = judge_governors(read_governors(tmp_path))
    assert (found.state, found.found) == ("note", "performance, powersave on 2 CPUs")
    assert found.fix.endswith("| sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor")
    assert judge_governors(["performance"] * 4).state == "ok"


def test_processes(tmp_path: Path) -> None:
    assert judge_processes((None, "")).state == "ok"
    assert [judge_processes((most, "ulimit -u")).state for most in (10, 100, 4000)] == ["broken", "note", "ok"]
    assert judge_processes((10, "ulimit -u")).fix.startswith("ulimit -u ")
    assert "--pids-limit" in judge_processes((10, "pids.max of the cgroup")).fix
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/box\n")
    (tmp_path / "sys/fs/cgroup/box").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/box/pids.max").write_text("5\n")
    assert process_limit(tmp_path) == (5, "pids.max of the cgroup")


def test_disk(tmp_path: Path) -> None:
    assert [judge_disk(tmp_path, mib << 20).state for mib in (0, 10, 100)] == ["broken", "note", "ok"]
    assert "SLABWIRE_RUN_DIR" in judge_disk(tmp_path, 0).fix


@pytest.mark.parametrize(
    ("version", "missing", "tls13", "state"),
    [
        ("OpenSSL 3.0.15 3 Sep 2024", "", True, "ok"),
        ("OpenSSL 3.0.15 3 Sep 2024", "", False, "ok"),
        ("", "libssl.so.3: cannot open", True, "note"),
        ("", "libssl.so.3: cannot open", False, "note"),
    ],
)
def test_libssl(version: str, missing: str, tls13: bool, state: str) -> None:
    finding = judge_libssl(version, missing, "OpenSSL 1.1.1w  11 Sep 2023", tls13)
    assert (finding.state, bool(finding.fix)) == (state, state != "ok")
    assert missing in finding.found


@pytest.mark.parametrize(("refusal", "words"), [("", "not used"), ("no module tls", "no module tls")])
def test_kernel_tls_is_no_matter_of_health(refusal: str, words: str) -> None:
    finding = judge_kernel_tls(refusal)
    assert (finding.state, finding.fix) == ("ok", "")
    assert words in finding.found


def test_libssl_is_looked_for_where_the_ingress_does(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "OpenSSL" in find_libssl()[0]
    monkeypatch.setenv("SLABWIRE_LIBSSL", "stdlib")
    assert find_libssl() == ("", "SLABWIRE_LIBSSL=stdlib asks for none")


def test_ports() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert try_port(port) == errno.EADDRINUSE
        assert f"sport = :{port}" in judge_port(port, errno.EADDRINUSE, 1024).fix
    assert judge_port(port, 0, 1024).state == "ok"
    assert "ip_unprivileged_port_start=80" in judge_port(80, errno.EACCES, 1024).fix
    assert judge_port(8443, errno.EADDRNOTAVAIL, 1024).state == "note"
