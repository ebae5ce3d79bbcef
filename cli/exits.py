"""Every exit status of the command line, in one place."""

from __future__ import annotations

from enum import IntEnum
from typing import Self

from ..runtime.errors import Disconnected, SlabwireError, StartError
from ..runtime.postmortem.stopped import UNCLEAN


class Exit(IntEnum):
    """What a status means. Scripts may rely on the numbers."""

    meaning: str

    def __new__(cls, value: int, meaning: str) -> Self:
        """Makes a member that is its number and knows what it means."""
        member = int.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member

    OK = 0, "done; also a graph that was drained after Ctrl-C, SIGTERM or `slabwire stop`"
    FAILED = 1, "a mistake in a graph or its code, a failed check, any other error with a message"
    USAGE = 2, "a command line that cannot be understood"
    NOT_RUNNING = 3, "no such graph is running, or it does not answer"
    NOT_STARTED = 4, "a graph that did not become ready, or the successor of an actor"
    LOST = 5, "a graph that ended unasked: its supervisor died or gave up"
    UNCLEAN = UNCLEAN, "a graph that was stopped, but work was cut off, or a worker crashed while it stopped"
    INTERNAL = 70, "a bug of slabwire: an exception that nobody foresaw"  # EX_SOFTWARE of sysexits.h
    INTERRUPTED = 130, "Ctrl-C where nothing was drained: twice in `run`, once elsewhere"  # 128 + SIGINT
    TERMINATED = 143, "SIGTERM where nothing was drained"  # 128 + SIGTERM


class GraphLost(SlabwireError):
    """A supervisor that ended without being told to, or not as it should."""

    code = "lost"


def exit_for(error: SlabwireError) -> Exit:
    """The status with which a command ends that raised `error`."""
    if isinstance(error, GraphLost):
        return Exit.LOST
    if isinstance(error, Disconnected):
        return Exit.NOT_RUNNING
    return Exit.NOT_STARTED if isinstance(error, StartError) else Exit.FAILED
