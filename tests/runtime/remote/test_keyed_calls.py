"""Requests with idempotency keys at a gateway, without one."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from slabwire.runtime.gateway import idempotent_calls as keyed_calls
from slabwire.runtime.gateway.budget import Budget
from slabwire.runtime.gateway.idempotent_calls import IdempotentCalls
from slabwire.runtime.remote.protocol import Frame

NAME = ("", "echo.echo", "key")


def test_who_asks_while_abandoned_work_is_ending_gets_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyed_calls, "ORPHANED_FOR_S", 0.0)

    async def scene() -> list[bytes]:
        calls, begun, ending, may_end = IdempotentCalls(Budget()), asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def abandoned() -> list[Frame]:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                ending.set()
                await may_end.wait()
            raise AssertionError

        async def anew() -> list[Frame]:
            return [b"answer"]

        first = asyncio.ensure_future(calls.answer(NAME, [b"request"], abandoned))
        await begun.wait()
        first.cancel()
        await ending.wait()
        second = asyncio.ensure_future(calls.answer(NAME, [b"request"], anew))
        await asyncio.sleep(0)
        may_end.set()
        return await second

    assert asyncio.run(scene()) == [b"answer"]


def test_abandoned_work_makes_room_for_work_that_is_waited_for() -> None:
    """The oldest goes first, and no more of it than has to."""

    async def scene() -> tuple[list[bytes], list[int]]:
        budget = Budget(1000)
        calls, ended = IdempotentCalls(budget), []

        async def forever(number: int) -> list[Frame]:
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(number)
            raise AssertionError

        async def at_once() -> list[Frame]:
            return [b"answer"]

        waiting = []
        for each in range(3):
            asking = asyncio.ensure_future(calls.answer(("", "", str(each)), [bytes(300)], partial(forever, each)))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            waiting.append(asking)
        for asked in waiting[:2]:
            asked.cancel()
        await asyncio.wait(waiting[:2])
        answer = await calls.answer(("", "", "new"), [bytes(300)], at_once)
        waiting[2].cancel()
        were_ended = [*ended]
        await calls.close()
        return answer, were_ended

    assert asyncio.run(scene()) == ([b"answer"], [0])
