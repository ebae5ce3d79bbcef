"""When a worker may sleep, for how long, and what is seen to before and after it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...shm.bell import BLOCKS, ROOM, now_ns
from ...shm.consumer import Consumer
from ...shm.wait import AdaptiveWait
from ..dataplane.caller import Caller
from ..dataplane.endpoint import Endpoint
from .garbage import Garbage
from .turns import Turns, look_into


class Sleeper:
    """Of one worker, which is awake in between. It is told of each sleep: by `falls_asleep()`, and `woke(now_ns)`. One
    thread.
    """

    def __init__(
        self,
        wait: AdaptiveWait,
        endpoint: Endpoint,
        caller: Caller,
        turns: Turns,
        garbage: Garbage | None,
        falls_asleep: Callable[[], None],
        woke: Callable[[int], None],
    ) -> None:
        self.wait = wait
        self.had_news = False  # at the last look of `has_news`
        self._endpoint = endpoint
        self._caller = caller
        self._turns = turns
        self._garbage = garbage
        self._falls_asleep, self._woke = falls_asleep, woke

    def has_unread(self) -> bool:
        """Whether anything lies in the lanes."""
        for lane in self._lanes():  # noqa: SIM110 - `any` of a generator costs more than the look itself
            if lane.available():
                return True
        return False

    def spins(self) -> bool:
        """Looks into the lanes for as long as that has paid lately; whether there was news."""
        # While an outlet is full, waiting inputs are no news, and only the bell announces room: spinning is in vain.
        return self.wait.pays and not self._is_held_up() and self.wait.spin(self._look())

    def _lanes(self) -> list[Consumer]:
        lanes = [*self._caller.replies]
        for cell in self._turns.cells.values():
            lanes += cell.inlets.lanes
            lanes += cell.item_inlets.lanes
        return lanes

    def _look(self) -> Callable[[], Any]:
        """Tells whether there is news in any of the lanes as they are now."""
        look = look_into(self._lanes())
        return (lambda: look() or self._caller.has_news()) if self._caller.streams.waiting else look

    def _is_held_up(self) -> bool:
        for cell in self._turns.cells.values():  # noqa: SIM110 - `any` of a generator costs more than the look itself
            if cell.waits_for_room():
                return True
        return False

    def has_news(self) -> bool:
        """The last look after parking: also for forwarded blocks that came back while nobody would ring for them."""
        self.had_news = self._caller.collect() or self._caller.has_news() or self._turns.can_progress()
        return self.had_news

    def reasons(self) -> int:
        """What may end a sleep."""
        return self._caller.reasons() | (ROOM | BLOCKS if self._is_held_up() else 0)

    def longest_s(self, longest_s: float | None) -> float | None:
        """For how many of these seconds a sleep may last, None being any number, until time alone gives something to
        do.
        """
        now = now_ns()
        due_ns = self._endpoint.trim(now)
        for cell in self._turns.cells.values():
            if (at := cell.next_wake_ns()) and (at < due_ns or not due_ns):
                due_ns = at
        if not due_ns:
            return longest_s
        left_s = max(0.0, (due_ns - now) / 1e9)
        return left_s if longest_s is None else min(left_s, longest_s)

    def rest(self, longest_s: float | None) -> float | None:
        """Before a sleep: how many of these seconds it may last. 0: not at all, for the loop may have got something to
        do.
        """
        return longest_s if self._garbage is None else self._garbage.rest(now_ns(), longest_s, self.has_news)

    def falls_asleep(self) -> None:
        self._falls_asleep()

    def woke(self) -> None:
        now = now_ns()
        if self._garbage is not None:
            self._garbage.woke(now)
        self._woke(now)
