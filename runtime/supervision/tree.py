"""The supervision tree: which children stop and start when one has ended. No I/O; time and chance are arguments.

Leaves are workers and the gateway, branches are groups of workers. As in OTP, a group that was restarted more often
than its intensity allows fails as a whole, and its parent restarts it by the parent's strategy. A failure at the top
ends the graph, unless it is the gateway's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from ..spec import GroupSpec, Restart, Strategy
from .restart import LONGEST_LOAD_DELAY_S, Allowance, delay_s, is_wanted

Verdict = Literal["restart", "expected", "ended", "give_up"]


@dataclass(frozen=True)
class Outcome:
    """What follows from the end of a worker.

    "restart": the workers of `stop` are told to leave, and when they have those of `start` are started, in these orders
    and after `delay_s`. "expected": the worker was told to end. "ended": by its restart policy it is not started again.
    "give_up": `group` was at the top and had `restarts` within its window already. `group` is where that was decided.
    """

    verdict: Verdict
    group: str = ""
    strategy: Strategy = "one_for_one"
    stop: tuple[str, ...] = ()
    start: tuple[str, ...] = ()
    delay_s: float = 0.0
    restarts: int = 0
    within_s: float = 0.0


@dataclass
class Branch:
    """One group: its children, which are workers and groups by name, in order."""

    name: str
    children: tuple[str, ...]
    strategy: Strategy = "one_for_one"
    allowance: Allowance = field(default_factory=Allowance)

    def restarted_with(self, child: str) -> tuple[str, ...]:
        """The children that are restarted when that one fails."""
        if self.strategy == "one_for_all":
            return self.children
        at = self.children.index(child)
        return self.children[at:] if self.strategy == "rest_for_one" else (child,)

    def earlier(self, child: str) -> int:
        """Restarts within the window that the next delay depends on."""
        return self.allowance.count(child if self.strategy == "one_for_one" else None) - 1


@dataclass
class _Round:
    """Workers that are started together once all that had to stop have."""

    stopping: set[str]
    start: set[str]
    not_before_s: float


class Tree:
    """All workers of a graph, in the order in which they are started, and the groups that they are in."""

    def __init__(self, order: Sequence[str], restarts: Mapping[str, Restart], groups: Sequence[Branch]) -> None:
        self._order = tuple(order)
        self._restarts = dict(restarts)
        self._branches = {each.name: each for each in groups}
        self._parents = {child: each for each in groups for child in each.children}
        self._alone = {
            each: Branch("", (each,)) for each in order if each not in self._parents
        }  # each counts for itself
        self._up: set[str] = set()
        self._rounds: list[_Round] = []

    # -- what is asked -----------------------------------------------------------------------------------------------

    def groups_of(self, worker: str) -> list[str]:
        """The groups that a worker is in, the innermost first."""
        return [each.name for each in self._branches_of(worker) if each.name]

    def is_awaited(self, worker: str) -> bool:
        """Whether a worker is to be started, now or when others have stopped."""
        return any(worker in each.start for each in self._rounds)

    def next_due_s(self) -> float | None:
        """When `due` will next have a worker; None while all that are to start wait for the end of another."""
        return min((each.not_before_s for each in self._rounds if not each.stopping), default=None)

    # -- what happens ------------------------------------------------------------------------------------------------

    def started(self, worker: str) -> None:
        """A worker's process is there."""
        self._up.add(worker)

    def exited(self, worker: str, *, failed: bool, now_s: float, draw: float) -> Outcome:
        """A worker's process has ended; `draw` is a random number from 0 to 1."""
        if (outcome := self._not_restarted(worker, failed=failed)) is not None:
            return outcome
        child = worker
        for branch in self._branches_of(worker):  # at least one: who is in no group has a branch alone
            if branch.allowance.admit(child, now_s):
                return self._restart(branch, child, worker, now_s, draw)
            child = branch.name
        return Outcome("give_up", child, restarts=branch.allowance.count(), within_s=branch.allowance.within_s)

    def could_not_load(self, worker: str, *, failures: int, now_s: float, draw: float) -> Outcome:
        """A worker's process has ended because its code cannot be imported or constructed, `failures` times in a row.

        The worker is tried again alone, and for ever: the others have not lost it, and its code may be mended any time.
        """
        if (outcome := self._not_restarted(worker, failed=True)) is not None:
            return outcome
        wait_s = delay_s(failures, draw, LONGEST_LOAD_DELAY_S)
        self.postpone(worker, now_s + wait_s)
        return Outcome("restart", self._name_of(worker), start=(worker,), delay_s=wait_s)

    def due(self, now_s: float) -> list[str]:
        """The workers to start now, in order; each is told once."""
        ready = [each for each in self._rounds if not each.stopping and each.not_before_s <= now_s]
        self._rounds = [each for each in self._rounds if each not in ready]
        wanted = {name for each in ready for name in each.start}
        return [name for name in self._order if name in wanted]

    def renew(self, worker: str, now_s: float) -> bool:
        """Somebody wants a successor of that worker. True if the worker is to be told to leave for it."""
        self.forgive(worker)
        for each in self._rounds:
            if worker in each.start:  # a worker that waits to be tried again is tried now
                each.not_before_s = min(each.not_before_s, now_s)
        told = any(worker in each.stopping for each in self._rounds)
        self._begin(_Round({worker} & self._up, {worker}, now_s))
        return worker in self._up and not told

    def postpone(self, worker: str, until_s: float) -> None:
        """A worker could not be started now, or had better not be."""
        self._begin(_Round(set(), {worker}, until_s))

    def forgive(self, worker: str) -> None:
        """What a worker has died of is out of the way: its restarts do not count any more."""
        next(self._branches_of(worker)).allowance.forgive(worker)

    # -- inside ------------------------------------------------------------------------------------------------------

    def _not_restarted(self, worker: str, *, failed: bool) -> Outcome | None:
        """What follows from its end where nobody is restarted for it."""
        self._up.discard(worker)
        for each in self._rounds:
            if worker in each.stopping:
                each.stopping.discard(worker)
                return Outcome("expected")
        return None if is_wanted(self._restarts[worker], failed=failed) else Outcome("ended", self._name_of(worker))

    def _branches_of(self, worker: str) -> Iterator[Branch]:
        """From the innermost outwards."""
        branch = self._alone.get(worker) or self._parents.get(worker)
        while branch is not None:
            yield branch
            branch = self._parents.get(branch.name)

    def _name_of(self, worker: str) -> str:
        return next(self._branches_of(worker)).name

    def _workers_in(self, child: str) -> Iterator[str]:
        if child not in self._branches:
            yield child
            return
        for each in self._branches[child].children:
            yield from self._workers_in(each)

    def _restart(self, branch: Branch, child: str, worker: str, now_s: float, draw: float) -> Outcome:
        for inner in self._branches_of(worker):  # the groups that have failed begin afresh
            if inner is branch:
                break
            inner.allowance.clear()
        concerned = {name for each in branch.restarted_with(child) for name in self._workers_in(each)}
        wait_s = delay_s(branch.earlier(child), draw)
        told = {name for each in self._rounds for name in each.stopping}
        stop = tuple(name for name in reversed(self._order) if name in concerned & self._up - told)
        start = {name for name in concerned if name == worker or self._restarts[name] != "temporary"}
        self._begin(_Round(set(stop), start, now_s + wait_s))
        return Outcome(
            "restart",
            branch.name,
            branch.strategy,
            stop,
            tuple(name for name in self._order if name in start),
            wait_s,
            branch.allowance.count(),
            branch.allowance.within_s,
        )

    def _begin(self, new: _Round) -> None:
        """Joins it with all rounds that share a worker: nobody is started twice, or before all have stopped."""
        apart = []
        for each in self._rounds:
            if (each.start | each.stopping) & (new.start | new.stopping):
                new.start |= each.start
                new.stopping |= each.stopping
                new.not_before_s = max(new.not_before_s, each.not_before_s)
            else:
                apart.append(each)
        self._rounds = [*apart, new]


def branches(groups: Sequence[GroupSpec], workers_of: Mapping[str, Sequence[str]]) -> list[Branch]:
    """The groups of a graph over its workers; `workers_of` names those of each actor."""
    names = {each.name for each in groups}
    return [
        Branch(
            each.name,
            tuple(
                dict.fromkeys(
                    child for member in each.members for child in ((member,) if member in names else workers_of[member])
                )
            ),
            each.strategy,
            Allowance(each.intensity, each.within_s),
        )
        for each in groups
    ]
