"""The actors of one worker, which take turns on its thread."""

from __future__ import annotations

from collections.abc import Mapping

from ..shm.bell import now_ns
from .cell import Cell
from .scheduler import STARVED_AFTER_NS, RunQueue
from .stats import CellStats

# How long one actor runs before its neighbours in the worker get their turn.
QUANTUM_NS = 500_000


class Turns:
    """`cells` grows while the worker is built; `weights` names all that will be in it."""

    def __init__(self, weights: Mapping[str, int]) -> None:
        self.cells: dict[str, Cell] = {}
        self._stats: dict[str, CellStats] = {}
        self._queue = RunQueue(weights)

    def add(self, name: str, cell: Cell, stats: CellStats) -> None:
        self.cells[name] = cell
        self._stats[name] = stats

    def take_one(self) -> bool:
        """One quantum for the actor whose turn it is, of those that can use one; True if there was any."""
        if len(self.cells) == 1:
            (cell,) = self.cells.values()
            return cell.step(now_ns() + QUANTUM_NS)
        idle: set[str] = set()
        while len(idle) < len(self.cells):
            ready = [name for name, cell in self.cells.items() if name not in idle and cell.is_ready()]
            started = now_ns()
            deadlines = {name: due for name in ready if (due := self.cells[name].next_deadline_ns())}
            name = self._queue.pick(ready, deadlines, started)
            if name is None:
                break
            self._stats[name].waited(self._queue.waited_ns, is_starved=self._queue.waited_ns > STARVED_AFTER_NS)
            progressed = self.cells[name].step(started + QUANTUM_NS)
            self._queue.charge(name, now_ns() - started)
            if progressed:
                return True
            idle.add(name)
        self._queue.rest()
        return False
