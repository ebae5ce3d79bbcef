"""All answers that no task follows: one clock looks after them, and one place knows whom a stop concerns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from ..requests.metrics import Tally
from ..requests.problems import Problem
from ..requests.serving import ServingState, stopped

# The answers are looked after in so many lots, one after the other: 10,000 pings at once would hold up everybody.
_LOTS = 8


class Answer(Protocol):
    """`turn` is free for `OpenAnswers` to use."""

    turn: int

    def ping(self) -> None:
        """Breaks a silence that has lasted since the last call of this."""

    def fail(self, error: Exception) -> None:
        """An error ends it: it takes itself out."""


class OpenAnswers:
    """Looks after each every half of `ping_every_s`, so that none is silent for longer than that. `problem` says what
    an error is to the client of a request; `shown` is told how many there are. On one loop; without answers nothing
    runs.
    """

    def __init__(
        self,
        ping_every_s: float,
        state: ServingState,
        problem: Callable[[Exception, Tally], Problem],
        shown: Callable[[int], object] = lambda _: None,
    ) -> None:
        self.problem = problem
        self._every_s = ping_every_s / 2 / _LOTS
        self._state = state
        self._shown = shown
        self._lots: list[set[Answer]] = [set() for _ in range(_LOTS)]
        self._turn = 0
        self._timer: asyncio.TimerHandle | None = None
        state.tell(self.fail)

    def __len__(self) -> int:
        return sum(map(len, self._lots))

    def add(self, answer: Answer) -> None:
        """Looks after it from now on, until it is over."""
        answer.turn = self._turn
        self._lots[self._turn].add(answer)
        self._shown(len(self))
        if self._timer is None:
            self._set_timer()
        if self._state.is_over:
            answer.fail(stopped())

    def discard(self, answer: Answer) -> None:
        """It is over."""
        self._lots[answer.turn].discard(answer)
        self._shown(len(self))

    def fail(self, error: Exception) -> None:
        """Ends all with this error."""
        for lot in self._lots:
            for each in list(lot):
                each.fail(error)

    def _set_timer(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._every_s, self._look)

    def _look(self) -> None:
        self._timer = None
        if len(self):
            self._set_timer()
            self._turn = (self._turn + 1) % _LOTS
            for each in list(self._lots[self._turn]):
                each.ping()
