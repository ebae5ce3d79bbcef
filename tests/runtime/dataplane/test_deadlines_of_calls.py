"""A call's time runs while it waits for others, too."""

from __future__ import annotations

import asyncio
import threading
from threading import get_ident
from typing import Any

import pytest

import slabwire
from slabwire.runtime.clients import async_client, client, shared_connection
from slabwire.runtime.clients.async_connection import AsyncLocalConnection
from slabwire.runtime.clients.connection import Connection
from slabwire.runtime.clients.shared_connection import SharedConnection
from slabwire.runtime.dataplane.async_calls import AsyncCalls
from slabwire.runtime.dataplane.deadlines import Deadlines, Wait
from slabwire.runtime.dataplane.pending import deadline_of
from slabwire.runtime.dataplane.places import Places
from slabwire.runtime.spec import USUAL_CALLS


class Port:
    """Where calls begin, and nobody answers."""

    def checked(self, *_: Any, **__: Any) -> object:
        return object()

    def begin(self, *_: Any, **__: Any) -> object:
        return object()

    def cancel(self, _: object) -> None:
        pass


def test_a_call_does_not_wait_for_a_place_beyond_its_deadline() -> None:
    async def scene() -> None:
        port: Any = Port()
        calls = AsyncCalls(port, USUAL_CALLS, asyncio.get_running_loop())
        others = [asyncio.create_task(calls.call("a.b", (), {}, 0)) for _ in range(USUAL_CALLS)]
        await asyncio.sleep(0)
        for ask in (calls.call, calls.started):
            with pytest.raises(slabwire.DeadlineExceeded, match="in flight"):
                await ask("a.b", (), {}, deadline_of(0.01))
        for each in others:
            each.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        last = asyncio.create_task(calls.call("a.b", (), {}, deadline_of(60)))
        await asyncio.sleep(0)
        assert not last.done()  # no place was lost
        last.cancel()

    asyncio.run(scene())


def begun(deadlines: Deadlines, timeout_s: float | None) -> Wait:
    wait = Wait(deadline_of(timeout_s), asyncio.get_running_loop())
    if wait.deadline_ns:
        deadlines.add(wait)
    return wait


def end(deadlines: Deadlines, wait: Wait) -> None:
    wait.is_over = True
    if wait.deadline_ns:
        deadlines.forget()


def test_waits_are_late_in_the_order_of_their_deadlines_and_others_never() -> None:
    async def scene() -> None:
        deadlines, late = Deadlines(asyncio.get_running_loop()), list[float]()

        async def wait(timeout_s: float | None) -> None:
            wait = begun(deadlines, timeout_s)
            await wait.future
            assert wait.is_late
            late.append(timeout_s or 0.0)
            end(deadlines, wait)

        tasks = [asyncio.create_task(wait(each)) for each in (0.05, None, 0.02, 60.0, 0.0)]
        while len(late) < 3:
            await asyncio.sleep(0)
        assert late == [0.0, 0.02, 0.05]
        assert [each.done() for each in tasks] == [True, False, True, False, True]
        for each in tasks:
            each.cancel()

    asyncio.run(scene())


def test_waits_that_are_over_are_neither_late_nor_kept() -> None:
    async def scene() -> None:
        deadlines = Deadlines(asyncio.get_running_loop())
        first = begun(deadlines, 60.0)
        over = [begun(deadlines, 0.0) for _ in range(3)]
        for each in over:
            end(deadlines, each)
        for _ in range(1000):
            end(deadlines, begun(deadlines, 60.0))
        await asyncio.sleep(0.01)
        assert not any(each.is_late for each in (first, *over))
        assert len(deadlines._waits) < 100

    asyncio.run(scene())


def test_one_that_fails_takes_no_time_from_the_others() -> None:
    class Fails(Wait):
        def be_late(self) -> None:
            super().be_late()
            raise RuntimeError

    async def scene() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda *_: None)
        deadlines = Deadlines(loop)
        waits = [kind(deadline_of(timeout_s), loop) for kind, timeout_s in ((Fails, 0.01), (Wait, 0.02), (Fails, 0.03))]
        for each in waits:
            deadlines.add(each)
        for each in waits:
            await each.future
        assert all(each.is_late for each in waits)

    asyncio.run(scene())


def test_places_are_given_in_order_and_none_is_lost_with_a_task_that_is_cancelled() -> None:
    async def scene() -> None:
        places, got = Places(1), list[int]()

        async def take(number: int) -> None:
            await places.take()
            got.append(number)

        assert places.try_take()
        tasks = [asyncio.create_task(take(number)) for number in range(4)]
        await asyncio.sleep(0)
        tasks[0].cancel()  # while it waits
        await asyncio.sleep(0)
        places.give_back()
        tasks[1].cancel()  # once it has been given the place, and before it runs
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert got == [2]
        assert not places.try_take()
        places.give_back()
        await tasks[3]
        assert got == [2, 3]
        places.give_back()
        assert places.try_take()

    asyncio.run(scene())


def ended() -> Any:
    """A connection whose graph has ended, made without one."""
    connection: Any = SharedConnection.__new__(SharedConnection)
    Connection.__init__(connection)
    connection._name, connection.whose = "g", "graph 'g'"
    connection._renewing, connection._successor = threading.Lock(), None
    vars(connection).update(is_there=lambda: False, _closed=False, _leave=lambda: None)
    return connection


def test_a_thread_does_not_wait_for_another_that_connects_beyond_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    connecting, may_end = threading.Event(), threading.Event()

    def connect(*_: Any) -> Any:
        connecting.set()
        may_end.wait()
        return ended()

    first = ended()
    monkeypatch.setattr(shared_connection, "awaited", lambda *_: first)
    monkeypatch.setattr(shared_connection, "SharedConnection", connect)
    shared = client.Client("g")
    other = threading.Thread(target=first.renewed, args=(0,))
    other.start()
    connecting.wait()
    with pytest.raises(slabwire.Disconnected, match="in time"):
        shared.call("a.b", timeout_s=0.01)
    may_end.set()
    other.join()
    shared.close()


def test_a_task_does_not_wait_for_another_that_connects_beyond_its_deadline() -> None:
    async def scene() -> None:
        shared, connection = async_client.AsyncClient("g"), AsyncLocalConnection("g")
        local: Any = object()
        connection.local, connection.is_gone = local, True
        shared._connection = connection
        shared._loop, shared._thread = asyncio.get_running_loop(), get_ident()
        async with connection._renewing:
            with pytest.raises(slabwire.Disconnected, match="in time"):
                await shared.call("a.b", timeout_s=0.01)

    asyncio.run(scene())


@pytest.mark.parametrize("timeout_s", ["1", -1, float("nan")])
def test_what_is_no_time_is_said(timeout_s: Any) -> None:
    with pytest.raises(slabwire.MessageError, match="timeout_s is"):
        deadline_of(timeout_s)
