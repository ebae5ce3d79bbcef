"""A time that is moved far more often than it runs out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from slabwire.actors.ingress.http.deadline import Deadline

SOON_S = 0.02


def told(moves: Callable[[Deadline, float, list[str]], None]) -> list[str]:
    """What is called within some time of these moves."""
    said: list[str] = []

    async def scene() -> None:
        loop = asyncio.get_running_loop()
        deadline = Deadline(loop)
        moves(deadline, loop.time(), said)
        await asyncio.sleep(5 * SOON_S)
        deadline.end()
        assert not deadline.is_set

    asyncio.run(scene())
    return said


def test_it_is_called_once_when_its_time_has_come() -> None:
    assert told(lambda deadline, now, said: deadline.set(now + SOON_S, lambda: said.append("due"))) == ["due"]


def test_a_later_time_counts_and_so_does_an_earlier_one() -> None:
    def later(deadline: Deadline, now: float, said: list[str]) -> None:
        loop = asyncio.get_running_loop()
        deadline.set(now + SOON_S, lambda: said.append("early"))
        deadline.set(now + 2 * SOON_S, lambda: said.append("due" if loop.time() >= now + 2 * SOON_S else "early"))

    def earlier(deadline: Deadline, now: float, said: list[str]) -> None:
        deadline.set(now + 1000, lambda: said.append("late"))
        deadline.set(now + SOON_S, lambda: said.append("due"))

    assert told(later) == told(earlier) == ["due"]


def test_one_that_was_cleared_is_not_called_unless_it_is_set_again() -> None:
    def clears(deadline: Deadline, now: float, said: list[str]) -> None:
        deadline.set(now + SOON_S, lambda: said.append("first"))
        deadline.clear()
        assert not deadline.is_set

    def sets_again(deadline: Deadline, now: float, said: list[str]) -> None:
        clears(deadline, now, said)
        deadline.set(now + 2 * SOON_S, lambda: said.append("second"))

    assert told(clears) == []
    assert told(sets_again) == ["second"]


def test_it_may_be_set_again_by_what_it_calls() -> None:
    def again(deadline: Deadline, now: float, said: list[str]) -> None:
        def once_more() -> None:
            said.append("first")
            deadline.set(now + 2 * SOON_S, lambda: said.append("second"))

        deadline.set(now + SOON_S, once_more)

    assert told(again) == ["first", "second"]


def test_a_time_that_is_moved_sets_no_further_timer() -> None:
    async def scene() -> None:
        loop = asyncio.get_running_loop()
        deadline, set_at = Deadline(loop), loop.call_at
        timers: list[float] = []

        def counted(when: float, *rest: object) -> asyncio.TimerHandle:
            timers.append(when)
            return set_at(when, *rest)  # type: ignore[arg-type]

        loop.call_at = counted  # type: ignore[method-assign, assignment]
        for _ in range(100):
            deadline.clear()
            deadline.set(loop.time() + 1000, lambda: None)
        assert len(timers) == 1
        deadline.end()

    asyncio.run(scene())
