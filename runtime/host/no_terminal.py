"""Whoever asks for a terminal in a worker is told that there is none, and where there is one."""

from __future__ import annotations

import io
import os
import sys
from typing import Any, NoReturn

_TEXT = (
    "a worker has no terminal to read from; for breakpoint(), pdb or input() run the graph in your own process, by "
    "graph.run(in_process=True)"
)


class NoTerminal(RuntimeError):
    """No EOFError, at which debuggers leave without a word."""


class _Unattended(io.TextIOWrapper):
    """Standard input of a worker: empty for whoever reads it to its end, an error for whoever waits for a line."""

    def readline(self, size: int = -1, /) -> NoReturn:  # type: ignore[override]  # noqa: ARG002
        raise NoTerminal(_TEXT)

    def __next__(self) -> NoReturn:
        raise StopIteration


def explain_missing_terminal() -> None:
    """From here on in this process. A debugger that PYTHONBREAKPOINT names is left alone: it may listen elsewhere."""
    if sys.stdin is not None:
        sys.stdin = _Unattended(sys.stdin.buffer, encoding="utf-8")
    sys.breakpointhook = _break


def _break(*arguments: Any, **named: Any) -> Any:
    if os.environ.get("PYTHONBREAKPOINT") in (None, "", "pdb.set_trace"):
        raise NoTerminal(_TEXT)
    return sys.__breakpointhook__(*arguments, **named)
