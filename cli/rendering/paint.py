"""Log lines for a terminal: the name of each worker in a colour of its own, warnings and errors in theirs."""

from __future__ import annotations

import os
import re
import sys
from zlib import crc32

import click

from .logfile import Line

# Readable on black and on white; red and yellow are left to errors and warnings.
_COLORS = ("cyan", "green", "magenta", "blue", "bright_cyan", "bright_green", "bright_magenta", "bright_blue")
_LEVEL = re.compile(r"^(\S+Z )?(WARNING|ERROR|CRITICAL)\b")
_LOGGED = re.compile(r"(DEBUG|INFO|WARNING|ERROR|CRITICAL)\b")
_LEVELS = {"WARNING": "yellow", "ERROR": "red", "CRITICAL": "red"}
# Names are padded to the widest so far, up to this.
_WIDEST = 24


class Painter:
    """Plain text where the output is no terminal, or where NO_COLOR (https://no-color.org) is set."""

    def __init__(self) -> None:
        self._is_terminal = sys.stdout.isatty()
        self._paints = self._is_terminal and not os.environ.get("NO_COLOR")
        self._width = 0

    def line(self, line: Line, *, alone: bool = False, live: bool = False) -> str:
        """`alone`: there is but one worker, which needs no name. `live`: what is printed now needs no time."""
        text = line.body if live and not _LOGGED.match(line.body) else self._leveled(line.text)
        if alone:
            return text
        if not self._is_terminal:
            return f"{line.worker} | {text}"
        self._width = max(self._width, min(len(line.worker), _WIDEST))
        head = f"{line.worker.ljust(self._width)} |"
        return f"{click.style(head, fg=color_of(line.worker)) if self._paints else head} {text}"

    def _leveled(self, text: str) -> str:
        found = _LEVEL.match(text) if self._paints else None
        return text if found is None else click.style(text, fg=_LEVELS[found[2]])


def color_of(worker: str) -> str:
    """The same in every run."""
    return "bright_black" if worker in ("supervisor", "gateway") else _COLORS[crc32(worker.encode()) % len(_COLORS)]
