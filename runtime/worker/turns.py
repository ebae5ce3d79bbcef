"""The actors of one worker, which take turns on its thread: `RunQueue` says whose turn it is, `Turns` runs it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from ...shm.bell import now_ns
from ...shm.consumer import Consumer
from ..cell.cell import Cell
from ..telemetry.stats import CellStats

# How long one actor runs before its neighbours in the worker get their turn.
QUANTUM_NS = 500_000
# An actor with a message this near its deadline goes first,
NEAR_NS = 2_000_000
# as long as it has not had more than this over the ready one that has had least, each by its weight: ten quanta of a
# worker. Else an actor whose deadlines are always near would starve the others.
LEAD_NS = 5_000_000
# Who had something to do and was not run for this long was starved. A round of twenty neighbours with a quantum each
# takes a fifth of it: what takes so long is somebody's single run.
STARVED_AFTER_NS = 50_000_000


class RunQueue:
    """Which actor of a worker runs next. No I/O; time is an argument.

    Weighted fair: each actor's time counts against its weight, and who has used least runs next.

    An actor that was idle does not save up: it joins at the level of those that ran meanwhile. `waited_ns` is how long
    the one that was picked last had had something to do. What came while a neighbour ran counts from the beginning of
    that run on: at most so much too long.
    """

    def __init__(self, weights: Mapping[str, int]) -> None:
        self._weights = dict(weights)
        self._used = dict.fromkeys(weights, 0.0)
        self._level = 0.0
        self._ready_since: dict[str, int] = {}
        self._ran: str | None = None  # its run has ended, and what came for others meanwhile was seen by nobody
        self._picked_ns = 0
        self.waited_ns = 0

    def pick(self, ready: Iterable[str], deadlines: Mapping[str, int], now_ns: int) -> str | None:
        """The name to run next among those that are ready. `deadlines` are in nanoseconds, where there are any."""
        candidates, used = list(ready), self._used
        self._note(candidates, now_ns)
        if not candidates:
            return None
        level = self._level
        for name in candidates:
            if used[name] < level:
                used[name] = level
        chosen = min(candidates, key=used.__getitem__)
        self._level = used[chosen]
        if deadlines:
            urgent = [name for name in candidates if self._is_urgent(name, deadlines.get(name, 0), now_ns)]
            chosen = min(urgent, key=deadlines.__getitem__, default=chosen)
        self.waited_ns = now_ns - self._ready_since.pop(chosen)
        self._picked_ns = now_ns
        return chosen

    def charge(self, name: str, nanoseconds: int) -> None:
        """Tells how long the one that was picked has run."""
        self._used[name] += nanoseconds / self._weights[name]
        self._ran = name

    def rest(self) -> None:
        """Tells that nobody has anything to do now: what comes from here on has not waited before."""
        self._ready_since.clear()
        self._ran = None

    def _is_urgent(self, name: str, deadline_ns: int, now_ns: int) -> bool:
        return 0 < deadline_ns <= now_ns + NEAR_NS and self._used[name] <= self._level + LEAD_NS

    def _note(self, candidates: Collection[str], now_ns: int) -> None:
        """Since when each has been ready."""
        since = self._ready_since
        unseen_ns = now_ns if self._ran is None else self._picked_ns
        self._ready_since = {name: since.get(name, now_ns if name == self._ran else unseen_ns) for name in candidates}
        self._ran = None


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

    def can_progress(self) -> bool:
        """Whether any of them would get anywhere now."""
        for cell in self.serving():  # noqa: SIM110 - `any` of a generator costs more than the look itself
            if cell.can_progress():
                return True
        return False

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
