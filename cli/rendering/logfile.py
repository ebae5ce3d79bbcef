"""The logs of a graph's workers: read, put in order of time, and followed."""

from __future__ import annotations

import heapq
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import repeat
from pathlib import Path
from threading import Event, Thread
from typing import IO

from ...runtime.logs.log_rotation import aside
from ...runtime.logs.log_times import Seen, read_times, seen, times_aside, times_of

# By as much the kernel's times of files may be behind those of processes: a tick of its clock.
_TICK_S = 0.01
LOOK_EVERY_S = 0.2
STAMP = re.compile(r"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?)Z ")


@dataclass(frozen=True)
class Line:
    """One line of one worker's log. `unix_s` is its stamp, or that of its neighbour if it has none of its own."""

    worker: str
    text: str
    unix_s: float | None = None

    @property
    def body(self) -> str:
        """The text without the stamp."""
        return STAMP.sub("", self.text, count=1)


def stamp_of(text: str) -> float | None:
    """Unix seconds of a line's leading timestamp (UTC); None where it has none."""
    match = STAMP.match(text)
    try:
        return None if match is None else datetime.fromisoformat(f"{match[1]}+00:00").timestamp()
    except ValueError:  # looks like a date and is none
        return None


def date(
    lines: Iterable[Line], before: float | None, after: float, looks: Iterable[Seen] = repeat(Seen(0.0, 0.0))
) -> Iterator[Line]:
    """Gives each line a time: its own stamp, else the one above it, else the next below, else `after`.

    So what C code prints stays beside the line that it was printed after; but where a look has been between the two,
    it takes the time by which it was seen. `looks` holds that of each line.
    """
    undated: list[Line] = []
    latest = before
    for line, look in zip(lines, looks, strict=False):
        stamp = stamp_of(line.text)
        if stamp is not None:
            latest = stamp
        elif look.by_s if latest is None else look.not_before_s + _TICK_S >= latest:
            latest = look.by_s or after
        if latest is None:
            undated.append(line)
            continue
        yield from (replace(each, unix_s=latest) for each in undated)
        undated.clear()
        yield replace(line, unix_s=latest)
    yield from (replace(each, unix_s=after) for each in undated)


def in_order(lines_by_worker: Iterable[Iterable[Line]]) -> Iterator[Line]:
    """All lines by time; those of one worker keep their order."""
    return heapq.merge(*lines_by_worker, key=lambda line: line.unix_s or 0.0)


class LogFile:
    """One worker's log, read from where the last reading ended. It stays readable after it was removed."""

    def __init__(self, path: Path) -> None:
        self.worker = path.stem
        self._path = path
        self._stream: IO[bytes] = path.open("rb")
        self._older = _number_of(aside(path))
        self._rest = _read_from(aside(path), 0)
        self._latest: float | None = None

    def read(self, *, final: bool = False) -> list[Line]:
        """The whole lines that are new; with `final` also one that nobody has ended."""
        data = self._rest + self._unread()
        ends_at = self._stream.tell()
        *whole, self._rest = data.split(b"\n")
        ends_at -= len(self._rest)
        if final and self._rest:
            whole.append(self._rest)
            ends_at += len(self._rest)
            self._rest = b""
        texts = (each.decode("utf-8", "replace").rstrip("\r") for each in whole)
        modified = os.fstat(self._stream.fileno()).st_mtime
        lines = list(
            date((Line(self.worker, text) for text in texts), self._latest, modified, self._looks(whole, ends_at))
        )
        self._latest = lines[-1].unix_s if lines else self._latest
        return lines

    def _looks(self, whole: Sequence[bytes], ends_at: int) -> list[Seen]:
        """When each of the lines was seen, the last of which ends there. What was put aside lies before 0."""
        rows = read_times(times_of(self._path))
        if ends_at < sum(len(each) + 1 for each in whole):
            shift = _size_of(aside(self._path))
            rows = [*((length - shift, when) for length, when in read_times(times_aside(self._path))), *rows]
        found = []
        for each in reversed(whole):
            found.append(seen(rows, ends_at))
            ends_at -= len(each) + 1
        return found[::-1]

    def close(self) -> None:
        self._stream.close()

    def _unread(self) -> bytes:
        """What was written since, also where the file was emptied, or put aside and begun anew."""
        ours, at = os.fstat(self._stream.fileno()), self._stream.tell()
        before = b""
        older = _number_of(aside(self._path))
        if older not in (self._older, ours.st_ino):  # put aside: what we had not read yet stands in the copy
            before = _read_from(aside(self._path), at)
            self._stream.seek(0)
        elif ours.st_size < at:
            self._stream.seek(0)
        self._older = older
        data = before + self._stream.read()
        if _number_of(self._path) not in (0, ours.st_ino):  # another file has its name
            self._stream.close()
            self._stream = self._path.open("rb")
            data += self._stream.read()
        return data


def _number_of(path: Path) -> int:
    """The inode of a file, 0 where there is none."""
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return 0


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _read_from(path: Path, offset: int) -> bytes:
    try:
        with path.open("rb") as stream:
            stream.seek(offset)
            return stream.read()
    except FileNotFoundError:
        return b""


class LogFolder:
    """The logs of some workers of a graph (None: of all); files that appear later are taken in. A context manager."""

    def __init__(self, folder: Path, workers: set[str] | None = None) -> None:
        self._folder = folder
        self._workers = workers
        self._files: dict[str, LogFile] = {}

    def __enter__(self) -> LogFolder:
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._files.values():
            each.close()

    def read(self, *, final: bool = False) -> Iterator[Line]:
        """What is new in all files, by time."""
        for path in log_paths(self._folder):
            wanted = self._workers is None or path.stem in self._workers
            if wanted and path.stem not in self._files:
                self._files[path.stem] = LogFile(path)
        return in_order([each.read(final=final) for each in self._files.values()])


def log_paths(folder: Path) -> list[Path]:
    """The log files of a graph, by worker."""
    return sorted(folder.glob("*.log"))


@contextmanager
def echoed(folder: Path, say: Callable[[Line], None]) -> Iterator[None]:
    """Calls `say`, in a thread, with each new line of the logs in `folder`, which need not exist yet.

    On leaving it says what was written last, also by a graph whose directory is gone.
    """
    ended = Event()
    thread = Thread(target=_echo, args=(folder, say, ended), name="slabwire-echo", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _echo(folder: Path, say: Callable[[Line], None], ended: Event) -> None:
    with LogFolder(folder) as logs:
        is_last = False
        while not is_last:
            is_last = ended.wait(LOOK_EVERY_S)
            for line in logs.read(final=is_last):
                say(line)
