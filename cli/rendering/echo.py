"""Prints what the workers of a graph write while it runs in the foreground."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

from .logfile import Line, LogFolder

LOOK_EVERY_S = 0.2


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
