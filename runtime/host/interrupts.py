"""Ctrl-C in a program whose main thread works for a graph: it stops people's code at once, and never a step of ours."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

_ROOT = __name__.partition(".")[0]
_OURS = (f"{_ROOT}.runtime.", f"{_ROOT}.shm.")
# What ours and people's code both call: whose step it is stands further up the stack.
_NEUTRAL = sys.stdlib_module_names | {"numpy", "zmq", "msgpack", "cloudpickle"}


class Interrupts:
    """`with` it around each turn of a graph. An interrupt that comes in a step of the runtime's is raised when the turn
    is over: torn in its middle, a step may have read news that nobody takes in any more. Other threads than the main
    one are not interrupted.

    `bell` is an eventfd that ends the sleep of a turn, in which nothing is torn.
    """

    def __init__(self, bell: int) -> None:
        self._bell = bell
        self._depth = 0
        self._came: FrameType | None = None
        self._usual: Callable[[int, FrameType | None], Any] = signal.default_int_handler

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self._depth += 1
            usual = signal.getsignal(signal.SIGINT)
            if callable(usual) and usual != self._hear:  # else it is ignored, or ends the process
                self._usual = usual
                signal.signal(signal.SIGINT, self._hear)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self._depth and _is_ours(frame):
            self._came = frame
            os.eventfd_write(self._bell, 1)
        else:  # also where a debugger has kept this handler and put it back when no turn is taken
            self._usual(number, frame)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        self._depth -= 1
        if not self._depth and signal.getsignal(signal.SIGINT) == self._hear:  # else people's code wants another one
            signal.signal(signal.SIGINT, self._usual)
        if self._came is not None:
            came, self._came = self._came, None
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._bell)
            self._usual(signal.SIGINT, came)


def _is_ours(frame: FrameType | None) -> bool:
    """Whether the runtime runs there, and not what it has called."""
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name.startswith(_OURS):
            return True
        if name.partition(".")[0] not in _NEUTRAL or name == "__main__":
            return False
        frame = frame.f_back
    return False
