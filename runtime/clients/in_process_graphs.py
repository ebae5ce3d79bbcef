"""The graphs that run in this process: clients find them by name, before those that run in processes of their own."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Protocol

from ..dataplane.descriptor_channel import Link, Listener
from ..errors import SlabwireError, StartError
from ..graph.compiled import Routing


class Here(Protocol):
    """A graph in this process as its clients see it. `is_driven`: it works only while somebody waits in `wait`."""

    name: str
    routing: Routing
    is_driven: bool

    def link(self, listener: Listener) -> Link:
        """A new client's line to the holder of the lanes."""

    def part(self) -> None:
        """A client has gone: what it had is given back."""

    def explain(self, key: tuple[int, int], error: SlabwireError) -> None:
        """Gives an error of a call the exception that caused it."""

    def refuse_own_thread(self) -> None:
        """Raises SlabwireError in a handler of the graph: its call would wait for the handler itself."""

    def wait(self, is_over: Callable[[], Any], longest_s: float | None, bell: int) -> None:
        """Works until `is_over()`, the time has passed, or the bell's descriptor is readable."""


_here: dict[str, Here] = {}
_pid = os.getpid()


def enter(graph: Here) -> None:
    """Raises StartError where another graph of that name runs here."""
    if find(graph.name) is not None:
        raise StartError(f"a graph named {graph.name!r} runs in this process already; run this one under another name=")
    _here[graph.name] = graph


def leave(graph: Here) -> None:
    """It has ended; nothing where it never entered."""
    if _here.get(graph.name) is graph:
        del _here[graph.name]


def find(name: str) -> Here | None:
    """None also in a child of the process that runs it, where its memory is not there."""
    global _pid
    if _pid != os.getpid():
        _pid = os.getpid()
        _here.clear()
    return _here.get(name)
