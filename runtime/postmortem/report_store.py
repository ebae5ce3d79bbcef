"""Where crash reports are kept: beside the run directories, so that they outlive the graph. Few, small, private."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import ProtocolError
from ..host import run_directory
from ..host.ownership import open_own

# Of each graph, and of how many graphs.
MOST_REPORTS = 20
MOST_GRAPHS = 32
# A report that is larger was not written by us.
LARGEST_NBYTES = 4 << 20


def crash_directory(graph: str) -> Path:
    """No graph can have this directory's name: theirs hold no dots."""
    return run_directory.base_directory() / ".crashes" / graph


def keep(graph: str, worker: str, report: dict[str, Any]) -> Path:
    """Writes a report, and removes the oldest ones. Raises OSError, StartError (a directory open to others)."""
    folder = crash_directory(graph)
    for each in (folder.parent, folder):
        run_directory.make_private(each)
    path = folder / f"{time.time_ns():020}-{worker}.json"
    beside = path.with_suffix(".new")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            json.dump(report, file)
    except OSError:
        beside.unlink(missing_ok=True)  # a full disk must not fill further
        raise
    beside.replace(path)
    _prune(folder)
    return path


def _prune(folder: Path) -> None:
    for each in folder.glob("*.new"):  # of a supervisor that was killed
        each.unlink(missing_ok=True)
    for each in sorted(folder.glob("*.json"))[:-MOST_REPORTS]:
        each.unlink(missing_ok=True)
    others = sorted((each for each in folder.parent.iterdir() if each != folder), key=_touched_s)
    for other in others[: max(0, len(others) + 1 - MOST_GRAPHS)]:
        shutil.rmtree(other, ignore_errors=True)


def _touched_s(folder: Path) -> float:
    """0 for one that another graph has removed meanwhile."""
    try:
        return folder.lstat().st_mtime
    except OSError:
        return 0.0


def graphs_with_reports() -> list[str]:
    """By when they had the last one. Raises UnusableDirectory."""
    folder = crash_directory("x").parent
    is_there = run_directory.is_private(folder.parent) and run_directory.is_private(folder)
    found = [each for each in folder.iterdir() if any(each.glob("*.json"))] if is_there else []
    return [each.name for each in sorted(found, key=_touched_s)]


def reports(graph: str) -> Iterator[dict[str, Any]]:
    """The newest first. Raises ProtocolError for a file that is none of ours; UnusableDirectory."""
    folder = crash_directory(graph)
    if not all(map(run_directory.is_private, (folder.parent.parent, folder.parent, folder))):
        return
    for path in sorted(folder.glob("*.json"), reverse=True):
        try:
            if path.stat().st_size > LARGEST_NBYTES:
                raise ValueError(f"it has over {LARGEST_NBYTES} bytes")
            with open(open_own(path, os.O_RDONLY), encoding="utf-8") as file:
                document = json.load(file)
        except PermissionError as error:
            raise ProtocolError(f"{path} is no crash report: {error.strerror}; remove it") from None
        except FileNotFoundError:  # it was the oldest, and a newer one has come
            continue
        except ValueError as error:
            raise ProtocolError(f"{path} is no crash report: {error}; remove it") from None
        if isinstance(document, dict) and "worker" in document:
            yield document
