"""When unstamped parts of logs were written: what C libraries, child processes and faulthandler print.

The supervisor looks at the logs twice a second, and notes beside each how long it was when it was last written to. So
nobody waits for a reader, nothing is lost with a process that is killed, and an idle graph costs a look.
"""

from __future__ import annotations

import asyncio
import os
import struct
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

LOOK_EVERY_S = 0.5
_ROW = struct.Struct("<qq")  # a length of the log, and when it had grown to it: nanoseconds of the Unix clock


class Seen(NamedTuple):
    """When somebody looked last and a line was not there yet, and when it was; both are Unix seconds, 0 if unknown."""

    not_before_s: float
    by_s: float


def times_of(log: Path) -> Path:
    """Where the times of a log lie."""
    return log.with_suffix(".times")


def times_aside(log: Path) -> Path:
    """Those of its older part."""
    return log.with_suffix(".times.1")


class LogTimes:
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
                    await asyncio.to_thread(_write, rows)
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
                        rows[times_of(Path(each.path))] = _ROW.pack(status.st_size, status.st_mtime_ns)
        except OSError:  # somebody has removed the folder of a running graph
            return {}
        return rows


def _write(rows: dict[Path, bytes]) -> None:
    for path, row in rows.items():
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o600)
        try:
            os.write(descriptor, row)
        finally:
            os.close(descriptor)


def read_times(path: Path) -> list[tuple[int, float]]:
    """Lengths and Unix seconds, both ascending; of a log that was emptied, since then."""
    try:
        packed = path.read_bytes()
    except OSError:
        return []
    rows: list[tuple[int, float]] = []
    for length, when_ns in _ROW.iter_unpack(packed[: len(packed) // _ROW.size * _ROW.size]):
        if rows and length < rows[-1][0]:
            rows.clear()
        rows.append((length, when_ns / 1e9))
    return rows


def seen(rows: Sequence[tuple[int, float]], end: int) -> Seen:
    """Of a line that ends at `end` of the log."""
    at = bisect_left(rows, (end, 0.0))
    return Seen(rows[at - 1][1] if at else 0.0, rows[at][1] if at < len(rows) else 0.0)
