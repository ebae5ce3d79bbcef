"""Logs of bounded length: what a worker has open for writing is put aside without its help."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from .log_times import times_aside, times_of

# Two of these a worker at most.
LOG_NBYTES = 16 << 20

Logs = dict[Path, os.stat_result]


def aside(path: Path) -> Path:
    """Where the older part of a log lies."""
    return path.with_suffix(".log.1")


def logs_in(folder: Path) -> Logs:
    """The logs in a folder, each with its length and the time of its last line."""
    try:
        with os.scandir(folder) as entries:
            return {Path(each.path): each.stat() for each in entries if each.name.endswith(".log")}
    except OSError:  # somebody has removed the folder of a running graph
        return {}


def long_logs(logs: Logs, nbytes: int = LOG_NBYTES) -> list[Path]:
    """Those that are longer than they may be."""
    return [path for path, status in logs.items() if status.st_size > nbytes]


def put_aside(path: Path) -> None:
    """Copies a log and empties it; whoever writes to it appends, and goes on.

    Killed on any line it leaves the log whole, or its copy. What is written between the last look and the emptying is
    lost: some microseconds of output. A disk that has no room for the copy costs the older part.
    """
    with contextlib.suppress(OSError), path.open("r+b", buffering=0) as log:
        with contextlib.suppress(OSError):
            _copy(log.fileno(), path.with_suffix(".part"), aside(path))
        with contextlib.suppress(OSError):
            times_of(path).replace(times_aside(path))
        os.ftruncate(log.fileno(), 0)


def _copy(log: int, part: Path, target: Path) -> None:
    """The copy takes its name when it is whole: by that its readers know that the log begins anew."""
    target.unlink(missing_ok=True)  # first: a nearly full disk needs its room
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as copy:
        while os.sendfile(copy.fileno(), log, None, 1 << 20):
            pass
        part.rename(target)
