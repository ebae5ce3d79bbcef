"""Times that one timer serves, and turns of the loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from slabwire.actors.ingress.tls import watcher as watcher_module
from slabwire.actors.ingress.tls.deadlines import Deadlines
from slabwire.actors.ingress.tls.watcher import READ, Watcher
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
        deadlines = Deadlines(asyncio.get_running_loop(), 0.2)
        first, second, third = (Waits(deadlines, log) for _ in range(3))
        await asyncio.sleep(0.01)
        later = Waits(deadlines, log)
        deadlines.discard(second)
        deadlines.add(first)  # begins again
        while len(log) < 3:
            await asyncio.sleep(0.001)
        assert log == [third, later, first]

    run(scene)


def test_one_that_fails_takes_no_time_from_the_others() -> None:
    class Fails(Waits):
        def overdue(self) -> None:
            super().overdue()
            raise RuntimeError

    async def scene() -> None:
        log: list[Waits] = []
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        deadlines = Deadlines(asyncio.get_running_loop(), 0.01)
        waits = [kind(deadlines, log) for kind in (Fails, Waits, Fails, Waits)]
        while len(log) < len(waits):
            await asyncio.sleep(0.001)
        assert log == waits

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


def test_one_timer_serves_all_who_come_while_it_runs() -> None:
    async def scene() -> None:
        loop, log = asyncio.get_running_loop(), list[Waits]()
        deadlines = Deadlines(loop, 0.02)
        for _ in range(100):
            deadlines.discard(Waits(deadlines, log))
        assert len(loop._scheduled) == 1  # type: ignore[attr-defined]
        last = Waits(deadlines, log)
        while not log:
            await asyncio.sleep(0.001)
        assert log == [last]

    run(scene)


class Noted:
    """Reads what has come, unless `stays`, and then does `also`."""

    def __init__(self, log: list[Noted], stays: bool = False) -> None:
        self.log = log
        self.here, self.there = socket.socketpair()
        self.here.setblocking(False)
        self.stays = stays
        self.also: Callable[[], object] = lambda: None

    def ready(self, events: int) -> None:
        assert events & READ
        self.log.append(self)
        if not self.stays:
            self.here.recv(100)
        self.also()

    def close(self) -> None:
        self.here.close()
        self.there.close()


@contextmanager
def watched(steps: int, count: int, stays: bool = False) -> Iterator[tuple[Watcher, list[Noted], list[Noted]]]:
    """A watcher, what it watches, and who was called."""
    log = list[Noted]()
    watcher = Watcher(asyncio.get_running_loop(), steps)
    every = [Noted(log, stays) for _ in range(count)]
    for each in every:
        watcher.add(each.here.fileno(), each)
    yield watcher, every, log
    for each in every:
        watcher.remove(each.here.fileno())
        each.close()
    watcher.close()


async def turns(count: int) -> None:
    for _ in range(count + 1):
        await asyncio.sleep(0)


def test_a_turn_has_so_many_steps_and_each_has_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher_module, "CALLS_A_TURN", 3)

    async def scene() -> None:
        with watched(2, 5, stays=True) as (watcher, every, log):
            stepped = list[Noted]()

            def step() -> None:
                if watcher.steps_left:
                    watcher.steps_left -= 1
                    stepped.append(log[-1])

            for each in every:
                each.also = step
                each.there.send(b"x")
            for _ in range(20):
                looked, done = len(log), len(stepped)
                await asyncio.sleep(0)
                assert len(log) <= looked + 3
                assert len(stepped) <= done + 2
            assert min(stepped.count(each) for each in every) >= 3

    run(scene)


def test_one_that_fails_keeps_no_other_from_its_turn() -> None:
    async def scene() -> None:
        failed = list[Any]()
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failed.append(context["exception"]))
        with watched(9, 3) as (_, every, log):
            every[0].also = lambda: 1 // 0
            for each in every:
                each.there.send(b"x")
            while len(log) < 3:
                await asyncio.sleep(0)
            assert [type(each) for each in failed] == [ZeroDivisionError]

    run(scene)


def test_what_is_to_be_soon_is_done_when_nobody_is_called() -> None:
    async def scene() -> None:
        with watched(9, 2) as (watcher, every, log):
            done = list[Any]()
            every[0].also = lambda: watcher.soon(lambda error: done.append((error, len(log))), None)
            for each in every:
                each.there.send(b"x")
            while len(log) < 2:
                assert not done
                await asyncio.sleep(0)
            assert done == [(None, 2)]
            watcher.soon(done.append, None)
            assert len(done) == 1
            await asyncio.sleep(0)
            assert done[1:] == [None]

    run(scene)


def test_who_is_watched_for_nothing_is_not_called_for_its_end() -> None:
    async def scene() -> None:
        with watched(9, 1, stays=True) as (watcher, (one,), log):
            watcher.change(one.here.fileno(), READ, 0)
            one.there.close()
            await turns(5)
            assert log == []
            watcher.change(one.here.fileno(), 0, READ)
            while not log:
                await asyncio.sleep(0)

    run(scene)


def test_a_watcher_that_is_closed_waits_for_the_last() -> None:
    async def scene() -> None:
        with watched(9, 1) as (watcher, (one,), log):
            watcher.close()
            one.there.send(b"x")
            while not log:
                await asyncio.sleep(0)

    run(scene)
