"""Who of an ingress's replicas is there, and the rows that they count in: kept memory, one part of it for each.

A process that was killed leaves what it has counted; its successor goes on from there. Nobody has to be asked for what
it knows: whoever wants the sum reads all rows, also of one that hangs.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple

from ....runtime.actor.kept import Kept
from ....runtime.host.process_usage import stat_fields
from ....shm.layout import LINE_NBYTES, WORD_NBYTES, Group, Layout, Word, round_up
from .sheet import Row, Sheet

ROSTER = Layout(
    "roster",
    Group(
        "replica",
        "that replica",
        (
            Word("process", "its process", "all replicas"),
            Word("born", "start time of that in clock ticks since boot: pids come again", "all replicas"),
            Word("stage", "what it does; see Stage", "all replicas"),
        ),
        rows="replicas",
        aligned=LINE_NBYTES,
    ),
    Group(
        "numbers",
        "the replica whose lines they are: each has as many, in order",
        (Word("line", "16 numbers of 8 bytes, as floats", "all replicas", nbytes=LINE_NBYTES),),
        rows="lines",
    ),
)
# Of proc(5), counted from the state on: the state itself, and when the process was started.
_STATE, _STARTED = 0, 19
# Stopped by a signal, traced, or dead: it serves nobody.
_IDLE_STATES = "TtZXx"

Keep = Callable[..., Kept]


class Stage(IntEnum):
    """What a replica does. One whose process does not run is away, whatever it has said."""

    AWAY = 0  # it starts, or has left
    SERVING = 1
    DRAINING = 2  # the graph ends: it ends what it has, and turns new requests away
    LEAVING = 3  # it is being replaced: it ends what it has, and takes no more connections


class Seen(NamedTuple):
    """One replica as any of them sees it. `pid` is 0 where it is away."""

    replica: int
    stage: Stage
    pid: int


class Roster:
    """One replica's view of all. `sheet` is what each counts; it must have been declared whole."""

    def __init__(self, sheet: Sheet, keep: Keep, replicas: int = 1) -> None:
        each_nbytes = round_up(max(1, sheet.length) * WORD_NBYTES, LINE_NBYTES)
        kept = keep("roster", ROSTER, replicas=replicas, lines=replicas * each_nbytes // LINE_NBYTES)
        self.replica, self.replicas = kept.replica, replicas
        self._sheet, self._words, self._placed = sheet, kept.words, kept.placed
        self._lines = each_nbytes // LINE_NBYTES
        self._numbers: memoryview[float] = kept.bytes.cast("d")
        self._stage = Stage.AWAY
        self._begin()

    def _begin(self) -> None:
        """The stage last: until that is set, what its predecessor has said does not count as said by this process."""
        self.enter(Stage.AWAY)
        first = self._first(self.replica)
        self._sheet.lie_in(self._numbers[first : first + self._sheet.length])
        pid = os.getpid()
        self._words[self._placed.word("process", self.replica)] = pid
        self._words[self._placed.word("born", self.replica)] = _born(pid)

    def _first(self, replica: int) -> int:
        return self._placed.offset("line", replica * self._lines) // WORD_NBYTES

    def own_first(self) -> list[int]:
        """The numbers of all replicas."""
        return [self.replica, *(each for each in range(self.replicas) if each != self.replica)]

    @property
    def stage(self) -> Stage:
        """What this replica does."""
        return self._stage

    def enter(self, stage: Stage) -> None:
        """Tells all what this replica does from now on."""
        self._stage = stage
        self._words[self._placed.word("stage", self.replica)] = int(stage)

    def see(self) -> list[Seen]:
        """All replicas, in order."""
        return [self._seen(replica) for replica in range(self.replicas)]

    def others_serve(self) -> bool:
        """Whether another replica serves."""
        return any(each.stage is Stage.SERVING for each in self.see() if each.replica != self.replica)

    def absent(self) -> set[int]:
        """The other replicas at whose sockets nobody accepts now."""
        return {
            each.replica
            for each in self.see()
            if each.stage in (Stage.AWAY, Stage.LEAVING) and each.replica != self.replica
        }

    def rows(self) -> list[Row]:
        """What each has counted so far."""
        length = self._sheet.length
        return [
            Row(each.replica, self._numbers[first : first + length].tolist(), each.pid != 0)
            for each in self.see()
            for first in [self._first(each.replica)]
        ]

    def _seen(self, replica: int) -> Seen:
        pid, born, stage = (self._words[self._placed.word(name, replica)] for name in ("process", "born", "stage"))
        if replica != self.replica and (stage == Stage.AWAY or _born(pid) != born):
            return Seen(replica, Stage.AWAY, 0)
        return Seen(replica, Stage(stage), pid)


def keep_here(_: str, layout: Layout, **parameters: int) -> Kept:
    """Keeps memory for this process alone, as `Actor.keep` keeps it for all replicas."""
    placed = layout.place(**parameters)
    memory = memoryview(bytearray(placed.nbytes))
    return Kept(memory.cast("Q"), memory, placed, 0)


def _born(pid: int) -> int:
    """When a process was started; 0 where it does not run."""
    fields = stat_fields(pid) if pid else []
    return int(fields[_STARTED]) if len(fields) > _STARTED and fields[_STATE] not in _IDLE_STATES else 0
