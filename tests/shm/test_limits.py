"""Limits on memory: read from cgroups of both versions, rlimits and the machine; the error names what to change."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from slabwire.shm.errors import OutOfMemory
from slabwire.shm.limits import memory_limits, require_memory

MOUNTS = """\
30 1 0:1 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw
31 1 0:2 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
"""


def _machine(root: Path, available_kib: int, groups: str, files: dict[str, str]) -> Path:
    """A root folder with what the kernel would show."""
    meminfo = f"MemTotal: 9 kB\nMemAvailable: {available_kib} kB\n"
    files = {"proc/meminfo": meminfo, "proc/self/cgroup": groups, "proc/self/mountinfo": MOUNTS, **files}
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


V2 = "sys/fs/cgroup"
V1 = "sys/fs/cgroup/memory"


def _tightest(root: Path) -> tuple[int, str]:
    limit = memory_limits(root)[0]
    return limit.available_nbytes, limit.setting


def test_without_cgroups_the_machine_is_the_limit(tmp_path: Path) -> None:
    assert _tightest(_machine(tmp_path, 1000, "", {})) == (1024000, "MemAvailable of this machine = 1024000 bytes")


@pytest.mark.parametrize("folder", ["", "a/", "a/b/"])
def test_a_limit_of_any_group_above_counts(tmp_path: Path, folder: str) -> None:
    files = {f"{V2}/{folder}memory.max": "5000\n", f"{V2}/{folder}memory.current": "1000\n"}
    files[f"{V2}/a/b/memory.high"] = "max\n"
    nbytes, setting = _tightest(_machine(tmp_path, 1000, "0::/a/b\n", files))
    assert nbytes == 4000
    assert setting == f"{tmp_path / V2}/{folder}memory.max = 5000 bytes"


def test_in_a_container_the_mount_itself_is_the_group(tmp_path: Path) -> None:
    files = {f"{V2}/memory.max": "5000\n", f"{V2}/memory.current": "1000\n"}
    assert _tightest(_machine(tmp_path, 1000, "0::/docker/abc\n", files))[0] == 4000


def test_a_path_that_leads_out_of_the_mount_is_not_followed(tmp_path: Path) -> None:
    files = {"sys/fs/memory.max": "1\n", "sys/fs/memory.current": "1\n", f"{V2}/memory.max": "max\n"}
    assert _tightest(_machine(tmp_path, 1000, "0::/../../other\n", files))[0] == 1024000


@pytest.mark.parametrize(
    ("groups", "limit", "usage", "stat"),
    [
        ("0::/a\n", f"{V2}/a/memory.max", f"{V2}/a/memory.current", "inactive_file 300\nactive_file 200\n"),
        (
            "4:cpu:/\n7:memory:/a\n",
            f"{V1}/a/memory.limit_in_bytes",
            f"{V1}/a/memory.usage_in_bytes",
            "inactive_file 1\nactive_file 1\ntotal_inactive_file 300\ntotal_active_file 200\n",
        ),
    ],
)
def test_the_cache_of_files_is_not_counted_as_used(
    tmp_path: Path, groups: str, limit: str, usage: str, stat: str
) -> None:
    """A container that has read many files is full of cache, which the kernel gives back."""
    files = {limit: "5000\n", usage: "5000\n", str(Path(limit).parent / "memory.stat"): stat}
    assert _tightest(_machine(tmp_path, 1000, groups, files))[0] == 500


@pytest.mark.parametrize("text", ["max\n", "9223372036854771712\n", "", "rubbish\n"])
def test_no_limit_is_no_limit(tmp_path: Path, text: str) -> None:
    files = {f"{V2}/memory.max": text, f"{V2}/memory.current": "1000\n"}
    assert _tightest(_machine(tmp_path, 1000, "0::/\n", files))[0] == 1024000


def test_the_error_names_limit_request_setting_and_remedy(tmp_path: Path) -> None:
    root = _machine(tmp_path, 1000, "0::/\n", {f"{V2}/memory.max": "5000\n", f"{V2}/memory.current": "9000\n"})
    with pytest.raises(OutOfMemory) as caught:
        require_memory(777, "slab of worker scale", root)
    text = str(caught.value)
    for part in ("slab of worker scale needs 777 bytes", "memory.max = 5000 bytes", "leaves 0", "memory_bytes="):
        assert part in text


def test_what_fits_is_granted(tmp_path: Path) -> None:
    require_memory(1024000, "a slab", _machine(tmp_path, 1000, "", {}))
    require_memory(1 << 40, "a slab", tmp_path / "nothing is known here")


LIMITED = """
import resource, sys
from slabwire.shm.errors import OutOfMemory
from slabwire.shm.segment import Segment
from slabwire.shm.slab import SLAB
limit = getattr(resource, sys.argv[1])
resource.setrlimit(limit, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    Segment.create(SLAB, "slab of worker scale", blocks=1, payload_lines=1 << 24)
except OutOfMemory as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("name", "nbytes", "setting"),
    [("RLIMIT_AS", 1 << 31, "ulimit -v"), ("RLIMIT_FSIZE", 1 << 20, "ulimit -f")],
)
def test_limits_of_the_process_are_named(name: str, nbytes: int, setting: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", LIMITED, name, str(nbytes)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "slab of worker scale needs 2147" in ran.stdout
    assert f"{name} ({setting}) = {nbytes} bytes" in ran.stdout
