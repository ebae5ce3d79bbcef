"""What the doctor says about machines that we do not have."""

from __future__ import annotations

from pathlib import Path

import pytest

from slabwire.runtime.cli.examination import (
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
from slabwire.runtime.topology import Core, Topology


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
