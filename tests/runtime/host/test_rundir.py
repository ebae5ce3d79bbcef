"""The directory of a running graph, where another takes its name."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from slabwire.runtime.host.run_directory import RunDirectory


def test_a_directory_is_removed_while_nobody_takes_its_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    base = tmp_path / "run"
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(base))
    directory, removed = RunDirectory("one"), []
    real = shutil.rmtree

    def rmtree(path: Path, **settings: Any) -> None:
        lock = os.open(base / ".lock", os.O_RDWR)
        with pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(lock)
        removed.append(path)
        real(path, **settings)

    monkeypatch.setattr(shutil, "rmtree", rmtree)
    directory.remove()
    assert removed == [directory.path]
    assert not directory.path.exists()
