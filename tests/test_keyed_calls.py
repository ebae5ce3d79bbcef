"""Requests with idempotency keys at a gateway, without one."""

from __future__ import annotations

import asyncio

import pytest

from slabwire.runtime import keyed_calls
from slabwire.runtime.budget import Budget
from slabwire.runtime.keyed_calls import KeyedCalls
from slabwire.runtime.wire import Frame

NAME = ("", "echo.echo", "key")


def test_who_asks_while_abandoned_work_is_ending_gets_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyed_calls, "ORPHANED_FOR_S", 0.0)

    async def scene() -> list[bytes]:
        calls, begun, ending, may_end = KeyedCalls(Budget()), asyncio.Event(), asyncio.Event(), asyncio.Event()

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
