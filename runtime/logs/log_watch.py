"""Looks at the logs of a graph, and notes when each has grown: what `log_times` reads."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from .log_times import row, times_of, write_times

LOOK_EVERY_S = 0.5


class LogWatch:
    """The supervisor's, of all logs in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lengths: dict[str, int] = {}

    async def watch(self) -> None:
        """For ever. Rows are written in a thread: a slow disk must not hold up the loop."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            rows = self.look()
            try:
                if rows:
                    await asyncio.to_thread(write_times, rows)
            except (OSError, RuntimeError):  # no room, or no thread: lines take the time of their neighbours
                continue

    def look(self) -> dict[Path, bytes]:
        """A row for each log that has grown."""
        rows = {}
        try:
            with os.scandir(self._folder) as entries:
                for each in entries:
                    if each.name.endswith(".log") and (status := each.stat()).st_size != self._lengths.get(each.name):
                        self._lengths[each.name] = status.st_size
                        rows[times_of(Path(each.path))] = row(status.st_size, status.st_mtime_ns)
        except OSError:  # somebody has removed the folder of a running graph
            return {}
        return rows
