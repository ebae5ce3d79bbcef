"""Gives back slabs that a pool has not needed for a while. No I/O; time is an argument."""

from __future__ import annotations

from .pool import Pool
from .slab import Slab

# Longer than the pauses within what comes in bursts, so that a pool does not give back what it asks for at once again
# (some milliseconds); short beside the time for which others on the machine would miss the memory.
IDLE_NS = 10_000_000_000


class Trimmer:
    """Looks at a pool whenever its process is about to sleep.

    One slab of each size class stays, the smallest if all are idle, so that a process that sends seldom never waits for
    memory. Each further slab is as large as all slabs before it, so at least half of what a burst took is given back.
    `due_ns` is when to look again although nothing has happened; 0: never. It is set only while there is a slab that
    may be idle long enough by then, so an idle process wakes up for it once or twice. `waits_for_blocks` says that
    readers keep blocks of slabs that could go: the pool is worth a look when they end.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.due_ns = 0
        self.waits_for_blocks = False
        self._marks: dict[int, tuple[int, int]] = {}  # uses of a slab that lay idle, and since when
        self._uses = self._grown = -1  # of all slabs at the last look; and how many had come by then

    def look(self, now_ns: int) -> None:
        """Gives back slabs that were idle for long enough. Costs little when it is too early or no slab could go."""
        waits = self.waits_for_blocks
        if (now_ns < self.due_ns and not waits) or (self._grown == self._pool.grown and not (self.due_ns or waits)):
            return
        self._grown = self._pool.grown
        self._look(now_ns)

    def _look(self, now_ns: int) -> None:
        self._pool.take_back()
        uses = {number: slab.uses() for number, slab in self._pool.slabs.items()}
        is_quiet = sum(uses.values()) == self._uses
        marks, self._marks = self._marks, {}
        pinned, due = False, []
        for slabs in self._joined():
            idle = [each.identifier for each in slabs if self._pool.is_idle(each)]
            for number in idle:
                before = marks.get(number)
                self._marks[number] = before if before and before[0] == uses[number] else (uses[number], now_ns)
            left = self._give_back(slabs, now_ns)
            if len(left) > 1:
                pinned |= any(number not in self._marks for number in left)
                due += [self._marks[number][1] + IDLE_NS for number in left if number in self._marks]
        self._uses = sum(each.uses() for each in self._pool.slabs.values())
        self.waits_for_blocks = pinned and is_quiet
        if pinned and not is_quiet:
            # Once more, to see whether nothing happens any more: from then on the readers' bell is enough.
            due.append(now_ns + IDLE_NS)
        self.due_ns = min((each for each in due if each > now_ns), default=0)

    def _joined(self) -> list[list[Slab]]:
        """The slabs of each size class that has several, the smallest first."""
        by_size: dict[int, list[Slab]] = {}
        for slab in sorted(self._pool.slabs.values(), key=lambda each: each.blocks):
            by_size.setdefault(slab.block_nbytes, []).append(slab)
        return [slabs for slabs in by_size.values() if len(slabs) > 1]

    def _give_back(self, slabs: list[Slab], now_ns: int) -> list[int]:
        """Parts with those of one size class that have been idle for long enough, but for one; returns what is left."""
        over = [
            each
            for each in slabs
            if each.identifier in self._marks and now_ns - self._marks[each.identifier][1] >= IDLE_NS
        ]
        gone = over[1:] if len(over) == len(slabs) else over
        for slab in gone:
            del self._marks[slab.identifier]
            self._pool.part_with(slab)
        return [each.identifier for each in slabs if each not in gone]
