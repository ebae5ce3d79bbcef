"""A terminal that is drawn anew at every look and hears single keys. On leaving, it is as it was before."""

from __future__ import annotations

import os
import re
import select
import signal
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from types import FrameType
from typing import Any

# What keys without a letter send: arrows, function keys, Alt and a letter.
_ESCAPED = re.compile(r"\x1b(\[[0-9;?]*[ -/]*[@-~]|O.|.)?")


class Screen:
    """A context manager around `rich`'s alternate screen; main thread. Without a keyboard it only waits."""

    def __init__(self, console: Any) -> None:
        self._console = console
        self._before: list[Any] | None = None
        self._hears = False
        self._typed = ""
        self._waits = self._is_to_pause = False

    def __enter__(self) -> Screen:
        self._take()
        return self

    def __exit__(self, *_: object) -> None:
        self._give_back()

    def draw(self, picture: Any) -> None:
        """From the upper left corner; what does not fit is cut off."""
        self._console.update_screen(picture) if self._console.is_alt_screen else self._console.print(picture)

    def key_within(self, seconds: float) -> str:
        """The key that was pressed, "" where none was in time. What arrows and the like send is passed over."""
        self._waits = True
        if self._is_to_pause:
            self._pause()
        try:
            return self._key_before(monotonic() + seconds)
        finally:
            self._waits = False

    def _key_before(self, until: float) -> str:
        while not self._typed and (left := until - monotonic()) > 0:
            if not self._hears:
                select.select([], [], [], left)
                continue
            ready, _, _ = select.select([0], [], [], left)
            pressed = os.read(0, 64) if ready else b""
            if ready and not pressed:  # the keyboard is gone
                self._hears = False
            self._typed += _ESCAPED.sub("", pressed.decode(errors="replace"))
        typed, self._typed = self._typed[:1], self._typed[1:]
        return typed

    def _take(self) -> None:
        if sys.stdin.isatty():
            self._before = termios.tcgetattr(0)
            tty.setcbreak(0)
            self._hears = True
        self._console.set_alt_screen(True)
        self._console.show_cursor(False)

    def _give_back(self) -> None:
        self._console.show_cursor(True)
        self._console.set_alt_screen(False)
        if self._before is not None:
            termios.tcsetattr(0, termios.TCSADRAIN, self._before)
            self._before, self._hears = None, False

    def _pause(self) -> None:
        """Until `fg`."""
        self._is_to_pause = False
        self._give_back()
        os.kill(os.getpid(), signal.SIGSTOP)
        self._take()

    @contextmanager
    def signals(self) -> Iterator[None]:
        """While it is drawn on: SIGTERM leaves as Ctrl-C does, Ctrl-Z gives the terminal back until `fg`."""

        def leave(number: int, _frame: FrameType | None) -> None:
            sys.exit(128 + number)

        def pause(_number: int, _frame: FrameType | None) -> None:
            # While it is drawn on, its output is in the middle of a write and takes no other.
            self._is_to_pause = True
            if self._waits:
                self._pause()

        before = {
            number: signal.signal(number, handler)
            for number, handler in ((signal.SIGTERM, leave), (signal.SIGTSTP, pause))
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
