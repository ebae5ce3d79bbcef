"""Times that one timer serves, and turns of the loop."""

from __future__ import annotations

import asyncio

from slabwire.actors.ingress.tls.deadlines import Deadlines
from slabwire.actors.ingress.tls.turns import Turns
from tls_stage import run


class Waits:
    def __init__(self, deadlines: Deadlines, log: list[Waits]) -> None:
        self.log = log
        self.deadlines = deadlines
        self.also: list[Waits] = []
        deadlines.add(self)

    def overdue(self) -> None:
        self.log.append(self)
        for each in self.also:
            self.deadlines.discard(each)


def test_times_run_out_in_order_and_only_for_those_that_still_wait() -> None:
    async def scene() -> None:
        log: list[Waits] = []
        deadlines = Deadlines(asyncio.get_running_loop(), 0.02)
        first, second, third = (Waits(deadlines, log) for _ in range(3))
        await asyncio.sleep(0.01)
        later = Waits(deadlines, log)
        deadlines.discard(second)
        deadlines.add(first)  # begins again
        while len(log) < 3:
            await asyncio.sleep(0.001)
        assert log == [third, later, first]

    run(scene)


def test_who_is_overdue_may_take_out_others_and_put_in_new_ones() -> None:
    async def scene() -> None:
        log: list[Waits] = []
        deadlines = Deadlines(asyncio.get_running_loop(), 0.01)
        first, second = Waits(deadlines, log), Waits(deadlines, log)
        first.also.append(second)
        await asyncio.sleep(0.03)
        assert log == [first]
        third = Waits(deadlines, log)
        await asyncio.sleep(0.03)
        assert log == [first, third]

    run(scene)


def test_no_timer_is_left_where_nobody_waits() -> None:
    async def scene() -> None:
        loop = asyncio.get_running_loop()
        deadlines = Deadlines(loop, 3600)
        deadlines.discard(Waits(deadlines, []))
        assert all(each.cancelled() for each in loop._scheduled)  # type: ignore[attr-defined]

    run(scene)


def test_a_turn_has_so_many_and_the_next_one_again() -> None:
    async def scene() -> None:
        turns = Turns(asyncio.get_running_loop(), 2)
        for _ in range(3):
            assert [turns.take() for _ in range(4)] == [True, True, False, False]
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert turns.take()

    run(scene)
