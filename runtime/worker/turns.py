"""The actors of one worker, which take turns on its thread."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from ...shm.bell import now_ns
from ...shm.consumer import Consumer
from ..cell.cell import Cell
from ..telemetry.stats import CellStats
from .run_queue import STARVED_AFTER_NS, RunQueue

# How long one actor runs before its neighbours in the worker get their turn.
QUANTUM_NS = 500_000


class Turns:
    """`cells` grows while the worker is built; `weights` names all that will be in it.

    `awake` are those that take turns while the worker starts, None is all of them: they have all started.
    """

    def __init__(self, weights: Mapping[str, int]) -> None:
        self.cells: dict[str, Cell] = {}
        self.awake: set[str] | None = set()
        self._stats: dict[str, CellStats] = {}
        self._queue = RunQueue(weights)

    def add(self, name: str, cell: Cell, stats: CellStats) -> None:
        self.cells[name] = cell
        self._stats[name] = stats

    def serving(self) -> Collection[Cell]:
        """The actors that take turns now."""
        return self.cells.values() if self.awake is None else [self.cells[name] for name in self.awake]

    def take_one(self) -> bool:
        """One quantum for the actor whose turn it is, of those that can use one; True if there was any."""
        awake = self.awake
        if len(self.cells) == 1 and awake is None:
            (cell,) = self.cells.values()
            return cell.step(now_ns() + QUANTUM_NS)
        idle: set[str] = set() if awake is None else self.cells.keys() - awake
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

    def credit(self, ran_ns: int, with_tasks: Collection[str]) -> None:
        """Adds the time that asyncio ran tasks to the actor that has some; of several nobody knows whose they were."""
        at_loop = [name for name, cell in self.cells.items() if cell.is_async or name in with_tasks]
        if len(at_loop) == 1:
            self._stats[at_loop[0]].count("busy_ns", ran_ns)


def look_into(lanes: Sequence[Consumer]) -> Callable[[], Any]:
    """What tells, at the least price, whether there is news in any of these lanes."""
    if len(lanes) == 1:
        return lanes[0].available

    def look() -> bool:
        for lane in lanes:  # noqa: SIM110 - `any` of a generator costs more than the look itself
            if lane.available():
                return True
        return False

    return look
