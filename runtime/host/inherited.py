"""What a process of ours inherits from whoever started it, put right before it does anything else.

A launcher may ignore or block signals, which outlives exec, and may have closed standard descriptors, in whose places
sockets and memory would come to lie.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable
from typing import IO

# Python ignores these itself, in every process.
_PYTHONS = (signal.SIGPIPE, signal.SIGXFSZ)
_FIRST_SOCKET, _MOST_SOCKETS = 3, 64


def put_right(signals: Iterable[int] | None = None) -> None:
    """At the very start of a process of ours. Ignored signals are heard again: these, or all."""
    for number in signal.valid_signals() - {*_PYTHONS} if signals is None else signals:
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    fill_standard_descriptors(for_children=True)
    _open_streams()


def fill_standard_descriptors(*, for_children: bool = False) -> None:
    """Opens /dev/null in the place of each of the descriptors 0 to 2 that is closed, so that nothing else comes to lie
    there: what a library writes to standard error must not get into a socket.

    In somebody else's process: without `for_children` the programs that it starts find them closed, as before.
    """
    for number in range(3):
        if not _is_open(number):
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), for_children)  # which gives the lowest that is closed


def inherited_sockets() -> list[int]:
    """The descriptors that systemd, or who speaks as it does, has started this process with (sd_listen_fds(3))."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []  # none, or they were for a process that started this one
    count = os.environ.get("LISTEN_FDS", "")
    numbers = range(_FIRST_SOCKET, _FIRST_SOCKET + min(int(count), _MOST_SOCKETS)) if count.isdecimal() else ()
    return [each for each in numbers if _is_open(each)]


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _open_streams() -> None:
    """Python has no streams for descriptors that were closed when it started."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            stream: IO[str] = os.fdopen(number, "w" if number else "r", errors="backslashreplace", closefd=False)
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)
