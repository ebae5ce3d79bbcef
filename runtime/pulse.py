"""Signs of life between a process and its parent, one byte each, over a socket that the process has inherited.

Neither ever waits for the other: a byte that finds no room is left out, and silence is counted while somebody listens.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket

BEAT_EVERY_S = 1.0


class Heart:
    """The end that gives signs: for as long as the loop comes round, and so not from a process that hangs."""

    def __init__(self, owner: socket.socket) -> None:
        owner.setblocking(False)
        self._owner = owner

    def beat(self) -> None:
        """Gives a sign now, and another each second, on the loop that runs."""
        # No room: the parent is slow, and has signs enough. Broken: it is gone, and we are about to be.
        with contextlib.suppress(OSError):
            self._owner.send(b"\0")
        asyncio.get_running_loop().call_later(BEAT_EVERY_S, self.beat)


class Pulse:
    """For how long no sign has come, as seen at looks. No I/O; time is an argument.

    Of the time between two looks no more than `longest_s` counts: while the parent itself was held up or stopped
    (and its children perhaps with it), it did not listen.
    """

    def __init__(self, now_s: float, longest_s: float = 2 * BEAT_EVERY_S) -> None:
        self.silent_s = 0.0
        self._longest_s = longest_s
        self._looked_s = now_s

    def look(self, now_s: float, *, heard: bool) -> float:
        """Notes whether signs have come since the look before; returns for how long there were none."""
        since_s = min(max(0.0, now_s - self._looked_s), self._longest_s)
        self.silent_s = 0.0 if heard else self.silent_s + since_s
        self._looked_s = now_s
        return self.silent_s


def hears(connection: socket.socket) -> bool:
    """Whether signs have come; takes them. The socket does not block."""
    heard = False
    with contextlib.suppress(OSError):
        while connection.recv(4096):
            heard = True
    return heard


def is_stopped(pid: int) -> bool:
    """Whether the kernel does not run a process, since a signal stopped it."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] == "T"
    except OSError:
        return False
