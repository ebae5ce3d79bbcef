"""When unstamped parts of logs were written: what C libraries, child processes and faulthandler print.

The supervisor looks at the logs twice a second, and notes beside each how long it was when it was last written to. So
nobody waits for a reader, nothing is lost with a process that is killed, and an idle graph costs a look.
"""

from __future__ import annotations

import os
import struct
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

_ROW = struct.Struct("<qq")  # a length of the log, and when it had grown to it: nanoseconds of the Unix clock


class Seen(NamedTuple):
    """When somebody looked last and a line was not there yet, and when it was; both are Unix seconds, 0 if unknown."""

    not_before_s: float
    by_s: float


def row(length: int, when_ns: int) -> bytes:
    """What is noted of one look."""
    return _ROW.pack(length, when_ns)


def times_of(log: Path) -> Path:
    """Where the times of a log lie."""
    return log.with_suffix(".times")


def times_aside(log: Path) -> Path:
    """Those of its older part."""
    return log.with_suffix(".times.1")


def write_times(rows: Mapping[Path, bytes]) -> None:
    """Adds a row to each file. Raises OSError."""
    for path, packed in rows.items():
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(path, flags, 0o600), "ab", buffering=0) as file:
            file.write(packed)


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
