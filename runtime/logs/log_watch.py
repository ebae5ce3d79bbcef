"""Looks at the logs of a graph: notes when each has grown, which `log_times` reads, and puts long ones aside."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from .log_rotation import Logs, logs_in, long_logs, put_aside
from .log_times import row, times_of, write_times

logger = logging.getLogger("slabwire")

LOOK_EVERY_S = 0.5


class LogWatch:
    """The supervisor's, of all logs in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lengths: dict[Path, int] = {}

    async def watch(self) -> None:
        """For ever. Files are written in a thread: a slow disk must not hold up the loop."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            logs = logs_in(self._folder)
            rows, long = self.grown(logs), long_logs(logs)
            try:
                if rows or long:
                    await asyncio.to_thread(_write, rows, long)
            except RuntimeError as error:  # no thread can be started: some may end
                for path in long:
                    logger.warning("%s cannot be put aside now: %s", path, error)

    def grown(self, logs: Logs) -> dict[Path, bytes]:
        """A row for each log that has grown."""
        rows = {}
        for path, status in logs.items():
            if status.st_size != self._lengths.get(path):
                self._lengths[path] = status.st_size
                rows[times_of(path)] = row(status.st_size, status.st_mtime_ns)
        return rows


def _write(rows: Mapping[Path, bytes], long: Sequence[Path]) -> None:
    with contextlib.suppress(OSError):  # no room: lines take the time of their neighbours
        write_times(rows)
    for path in long:
        put_aside(path)
