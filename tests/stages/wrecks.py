"""Actors that do to their process what must not be done."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from pathlib import Path

from slabwire import Actor


class Wrecks(Actor):
    """Each handler ruins its process in its own way."""

    def fine(self) -> int:
        return os.getpid()

    def loop(self) -> None:
        while True:
            pass

    def segfault(self) -> None:
        ctypes.string_at(0)

    def abort(self) -> None:
        os.abort()

    def exit(self, code: int) -> None:
        sys.exit(code)

    async def exit_in_coroutine(self, code: int) -> None:
        sys.exit(code)

    def hard_exit(self, code: int) -> None:
        os._exit(code)

    def interrupt(self) -> None:
        raise KeyboardInterrupt

    def close_all(self) -> str:
        os.closerange(0, 4096)
        return "closed"

    def close_and_wait(self) -> str:
        os.closerange(0, 4096)
        time.sleep(3600)
        return "woke up"

    def close_most(self) -> str:
        """Not its log."""
        os.closerange(3, 4096)
        return "closed"

    def fork(self) -> int:
        """Its child lives on, and has what its parent has."""
        child = os.fork()
        if not child:
            while True:
                time.sleep(3600)
        return child

    def fork_and_return(self) -> int:
        """Its child comes back from the handler, too."""
        return os.fork()

    def raise_in_thread(self) -> int:
        thread = threading.Thread(target=_fails)
        thread.start()
        thread.join()
        return os.getpid()

    def ignore_signals(self) -> int:
        for number in range(1, signal.NSIG):
            with contextlib.suppress(OSError, ValueError):
                signal.signal(number, signal.SIG_IGN)
        return os.getpid()

    def forget_signals(self) -> int:
        for number in range(1, signal.NSIG):
            with contextlib.suppress(OSError, ValueError):
                signal.signal(number, signal.SIG_DFL)
        return os.getpid()


def _fails() -> None:
    raise ValueError("nobody waits for this thread")


class Stalls(Actor):
    """Never comes back from on_start while `stall` is there; takes it away."""

    def __init__(self, folder: str) -> None:
        self.stall = Path(folder) / "stall"

    def on_start(self) -> None:
        if self.stall.exists():
            self.stall.unlink()
            while True:
                time.sleep(3600)

    def fine(self) -> int:
        return os.getpid()


class Eats(Actor):
    """Takes memory until there is no more."""

    def eat(self) -> int:
        eaten = []
        while True:
            eaten.append(b"x" * (1 << 24))

    def fine(self) -> int:
        return os.getpid()
