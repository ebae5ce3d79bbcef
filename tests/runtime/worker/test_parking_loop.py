"""The loop of a worker: what is done in it, and what is done between its rounds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from edge import Edge
from slabwire import Actor, Graph
from slabwire.runtime.worker.parking_loop import new_parking_loop, stay
from slabwire.runtime.worker.sleeper import Sleeper
from slabwire.shm.bell import RECORDS
from slabwire.shm.wait import AdaptiveWait


class Idle(Sleeper):
    """There are no lanes; `news` says how often there is something to do all the same."""

    def __init__(self, wait: AdaptiveWait, news: int = 0) -> None:
        self.wait, self.had_news, self.news = wait, False, news

    def has_unread(self) -> bool:
        return self.news > 0

    def spins(self) -> bool:
        return False

    def has_news(self) -> bool:
        self.had_news = self.news > 0
        return self.had_news

    def reasons(self) -> int:
        return RECORDS

    def longest_s(self, longest_s: float | None) -> float | None:
        return longest_s

    def rest(self, longest_s: float | None) -> float | None:
        return longest_s

    def falls_asleep(self) -> None: ...

    def woke(self) -> None: ...


class Working:
    """Does what there is, and calls `each` for it."""

    def __init__(self, sleeper: Idle, each: Callable[[], None] = lambda: None) -> None:
        self.is_round_due = False
        self.rounds = 0
        self._sleeper, self._each = sleeper, each

    def work(self) -> bool:
        if not self._sleeper.news:
            return False
        self._sleeper.news -= 1
        self._each()
        return True

    def round_ended(self) -> None:
        self.rounds += 1

    def stops_for_news(self) -> bool:
        return self._sleeper.has_news()

    def between_rounds(self) -> None: ...


async def turn(times: int) -> None:
    for _ in range(times):
        await asyncio.sleep(0)


def test_only_sleep_counts_as_sleep() -> None:
    """From its sleeps a worker learns whether to spin: what its tasks do meanwhile is no sleep."""
    edge = Edge()
    wait = AdaptiveWait(edge.bell(0), may_spin=True)
    loop, selector = new_parking_loop()
    selector.watch(Idle(wait), Working(Idle(wait)), ())
    loop.run_until_complete(turn(1000))
    assert wait.bell.parks == 0
    loop.run_until_complete(asyncio.sleep(0.01))
    assert wait.bell.parks >= 1
    loop.close()
    edge.close()


def test_work_finds_no_running_loop_and_rounds_go_on() -> None:
    edge = Edge()
    wait = AdaptiveWait(edge.bell(0), may_spin=True)
    loop, selector = new_parking_loop()
    found: list[object] = []
    sleeper = Idle(wait, news=5)

    def work() -> None:
        found.append(asyncio._get_running_loop())
        if sleeper.news == 0:
            loop.call_soon(loop.stop)  # what work gives the loop is done before the next sleep

    worker = Working(sleeper, work)
    selector.watch(sleeper, worker, ())
    stay(loop, selector)
    assert found == [None] * 5
    assert worker.rounds >= 1
    assert wait.bell.parks == 0
    assert not selector.stays
    loop.close()
    edge.close()


def test_tasks_and_work_take_turns() -> None:
    """A task that never waits keeps nobody from the lanes, and lanes that are never empty keep no task from going on
    where a round is due.
    """
    edge = Edge()
    wait = AdaptiveWait(edge.bell(0), may_spin=True)
    loop, selector = new_parking_loop()
    sleeper = Idle(wait, news=1000)
    worker = Working(sleeper)
    worker.is_round_due = True
    selector.watch(sleeper, worker, ())
    task = loop.create_task(turn(100))
    task.add_done_callback(lambda _: loop.stop())
    stay(loop, selector)
    assert task.done()
    assert 800 < sleeper.news < 1000
    loop.close()
    edge.close()


class Runs(Actor):
    """Handlers with loops of their own, beside coroutines on the worker's."""

    async def on_start(self) -> None:
        self.ticks = 0
        self.task = asyncio.create_task(self._tick())

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(0.001)
            self.ticks += 1

    def own_loop(self, x: int) -> int:
        async def doubled() -> int:
            await asyncio.sleep(0)
            return 2 * x

        return asyncio.run(doubled())

    async def on_the_loop(self, x: int) -> int:
        await asyncio.sleep(0.001)
        return 3 * x

    def ticked(self) -> int:
        return self.ticks


def test_a_handler_may_run_a_loop_of_its_own() -> None:
    graph = Graph("loops")
    runs = graph.add(Runs)
    graph.expose(runs.own_loop, runs.on_the_loop, runs.ticked)
    with graph.run() as running:
        for each in range(20):
            assert running.client.call("runs.own_loop", each) == 2 * each
            assert running.client.call("runs.on_the_loop", each) == 3 * each
        assert running.client.call("runs.ticked") > 0
