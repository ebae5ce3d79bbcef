"""A graph in this process: where its code runs, what a debugger sees, what is left."""

from __future__ import annotations

import asyncio
import contextlib
import cProfile
import os
import pstats
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

import slabwire
from slabwire import Actor, Graph, SlabwireError
from waiting import wait_until


def graph_with(*codes: Any, name: str = "here", **arguments: Any) -> Graph:
    graph = Graph(name)
    for code in codes:
        node = graph.add(code, **arguments)
        graph.expose(*(getattr(node, port) for port in dir(node)))
    return graph


def test_it_runs_local_code_in_the_callers_thread_and_starts_no_process() -> None:
    seen: list[Any] = []

    class Notes(Actor):
        def __init__(self, lock: Any) -> None:
            self.lock = lock  # nothing has to travel

        def on_start(self) -> None:
            seen.append(("on_start", threading.current_thread()))

        def note(self, n: int) -> int:
            self.last = n
            seen.append((os.getpid(), threading.current_thread()))
            return n + 1

        async def slowly(self, n: int) -> int:
            await asyncio.sleep(0)
            seen.append((os.getpid(), threading.current_thread()))
            return n

        def items(self, n: int) -> Iterator[int]:
            for each in range(n):
                seen.append((os.getpid(), threading.current_thread()))
                yield each

        def on_drain(self) -> None:
            seen.append(("on_drain", threading.current_thread()))

        async def on_stop(self) -> None:
            seen.append(("on_stop", threading.current_thread()))

    with graph_with(Notes, lock=threading.Lock()).run(in_process=True) as running:
        assert running.client.call("notes.note", 4) == 5
        assert running.actors["notes"].last == 4  # type: ignore[attr-defined]
        assert running.client.call("notes.slowly", 4) == 4
        assert list(running.client.stream("notes.items", 2)) == [0, 1]
    me, here = os.getpid(), threading.current_thread()
    assert seen == [("on_start", here), *[(me, here)] * 4, ("on_drain", here), ("on_stop", here)]


class Fails(Actor):
    def plain(self) -> None:
        raise ZeroDivisionError("by hand")

    def items(self) -> Iterator[int]:
        yield 1
        raise ZeroDivisionError("by hand")

    async def coroutine(self) -> None:
        raise ZeroDivisionError("by hand")

    async def outer(self) -> None:
        await self.call("fails.plain")

    def exits(self) -> None:
        sys.exit(3)

    def interrupted(self) -> None:
        raise KeyboardInterrupt

    async def interrupted_later(self) -> None:
        await asyncio.sleep(0)
        raise KeyboardInterrupt

    async def sleeps(self) -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            self.is_woken = True

    def woken(self) -> bool:
        return getattr(self, "is_woken", False)

    def works(self) -> str:
        return "works"

    def overruns(self, raises: bool) -> str:
        while self.context.time_left_s():
            pass
        if raises:
            raise ZeroDivisionError("too late")
        return "too late"

    def has_time(self) -> bool:
        return self.context.deadline_s is None


@pytest.fixture
def fails() -> Iterator[Any]:
    with graph_with(Fails).run(in_process=True) as running:
        yield running.client


@pytest.mark.parametrize("port", ["plain", "items", "coroutine", "outer"])
def test_the_exception_itself_is_the_cause(fails: Any, port: str) -> None:
    with pytest.raises(slabwire.HandlerError, match="ZeroDivisionError: by hand") as caught:
        list(fails.stream(f"fails.{port}"))
    cause = caught.value.__cause__
    assert isinstance(cause, ZeroDivisionError)
    frame = cause.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    assert frame is not None
    assert isinstance(frame.tb_frame.f_locals["self"], Fails), "as a debugger wants it"


def test_ctrl_c_in_a_handler_reaches_the_caller_and_the_graph_goes_on(fails: Any) -> None:
    for port in ("interrupted", "interrupted_later"):
        with pytest.raises(KeyboardInterrupt):
            fails.call(f"fails.{port}")
        assert fails.call("fails.works") == "works"


def test_ctrl_c_while_a_coroutine_waits(fails: Any) -> None:
    timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        fails.call("fails.sleeps")
    timer.join()
    assert fails.call("fails.works") == "works"
    wait_until(lambda: fails.call("fails.woken"))


def test_sys_exit_ends_nothing_here(fails: Any) -> None:
    with pytest.raises(slabwire.HandlerError, match=r"sys.exit\(3\) was called; in a process of its own"):
        fails.call("fails.exits")
    assert fails.call("fails.works") == "works"


def test_calls_have_all_the_time_that_somebody_looks(fails: Any) -> None:
    assert fails.call("fails.has_time")
    assert not fails.call("fails.has_time", timeout_s=60)


@pytest.mark.parametrize("raises", [False, True])
def test_an_answer_that_comes_too_late_is_none(fails: Any, raises: bool) -> None:
    with pytest.raises(slabwire.DeadlineExceeded, match="in time"):
        fails.call("fails.overruns", raises, timeout_s=0.01)


def test_a_debugger_stops_in_a_handler(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from slabwire import Graph\n"
        "def double(n: int) -> int:\n    secret = 40 + n\n    breakpoint()\n    return 2 * n\n"
        "graph = Graph('debugged')\ngraph.expose(graph.add(double))\n"
        "if __name__ == '__main__':\n"
        "    with graph.run(in_process=True) as running:\n        print(running.client.call('double.double', 2))\n"
    )
    ended = subprocess.run(
        [sys.executable, str(script)], input="p secret\nwhere\nc\n", capture_output=True, text=True, check=True
    )
    assert "(Pdb) 42" in ended.stdout
    assert "running.client.call('double.double', 2)" in ended.stdout, "the caller is further up on the stack"
    assert ended.stdout.endswith("4\n")


def burn(n: int) -> int:
    return sum(range(n))


def test_a_profiler_sees_handlers() -> None:
    with graph_with(burn).run(in_process=True) as running:
        client, profile = running.client, cProfile.Profile()
        profile.enable()
        client.call("burn.burn", 1000)
        profile.disable()
    assert any(name == "burn" for _, _, name in pstats.Stats(profile).stats)  # type: ignore[attr-defined]


class Ticks(Actor):
    def on_start(self) -> None:
        self.ticks = 0
        self.task = asyncio.ensure_future(self._tick())

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(0.001)
            self.ticks += 1

    def thread(self) -> str:
        return threading.current_thread().name

    async def items(self, n: int) -> AsyncIterator[int]:
        for each in range(n):
            yield each


class TicksLater(Ticks):
    """Its hook runs on the loop."""

    async def on_start(self) -> None:  # type: ignore[override]
        super().on_start()


def test_it_works_while_somebody_waits() -> None:
    with graph_with(TicksLater).run(in_process=True) as running:
        actor: Any = running.actors["tickslater"]
        before = actor.ticks
        time.sleep(0.02)
        assert actor.ticks == before, "nobody has waited"
        while actor.ticks < before + 3:
            running.wait(0.01)
    assert actor.task.cancelled()


def test_inside_a_loop_it_has_a_thread() -> None:
    async def main() -> None:
        async with graph_with(TicksLater).run(in_process=True) as running:
            assert await running.client.call("tickslater.thread") == "slabwire here"
            assert [each async for each in running.client.stream("tickslater.items", 3)] == [0, 1, 2]
            actor: Any = running.actors["tickslater"]
            before = actor.ticks
            await asyncio.to_thread(wait_until, lambda: actor.ticks > before)
            assert (await running.status())["state"] == "ready"
        with graph_with(TicksLater).run(in_process=True) as running:  # as in a notebook's cell
            assert running.client.call("tickslater.thread") == "slabwire here"
            assert list(running.client.stream("tickslater.items", 3)) == [0, 1, 2]

    asyncio.run(main())
    assert not [each for each in threading.enumerate() if each.name.startswith("slabwire")]


@pytest.mark.parametrize("code", [Fails, TicksLater])
def test_an_asyncio_client_would_wait_for_ever(code: Any) -> None:
    why = "works only while a client waits that is not of asyncio"
    with graph_with(code).run(in_process=True), pytest.raises(slabwire.Disconnected, match=why):
        asyncio.run(slabwire.connect_async("here").open())


class Asks(Actor):
    def of_itself(self) -> Any:
        with slabwire.connect("here") as client:
            return client.call("asks.answer")

    def answer(self) -> int:
        return 1


def test_a_handler_that_waits_for_its_own_graph_is_told_so() -> None:
    with graph_with(Asks).run(in_process=True) as running:
        with pytest.raises(SlabwireError, match=r"waits for its own graph, .*; use `await self.call\(...\)`"):
            running.client.call("asks.of_itself")
        assert running.client.call("asks.answer") == 1


def test_two_at_once_and_one_name_twice() -> None:
    one, other = graph_with(burn, name="one"), graph_with(burn, name="other")
    with one.run(in_process=True) as first, other.run(in_process=True) as second:
        assert [each.client.call("burn.burn", 3) for each in (first, second, first)] == [3, 3, 3]
        with pytest.raises(slabwire.StartError, match=r"named 'one' runs in this process already; .* name="):
            one.run(in_process=True).__enter__()
        with one.run(in_process=True, name="third") as third:
            assert third.client.call("burn.burn", 4) == 6
    with pytest.raises(slabwire.Disconnected):
        slabwire.connect("one")


def test_it_is_told_why_it_does_not_start() -> None:
    class Breaks(Actor):
        async def on_start(self) -> None:
            raise FileNotFoundError("model.onnx")

        def get(self) -> None: ...

    class Cannot(Actor):
        def __init__(self) -> None:
            raise FileNotFoundError("model.onnx")

        def get(self) -> None: ...

    for code in (Breaks, Cannot):
        with pytest.raises(slabwire.StartError, match=r"did not start: .*model\.onnx") as caught:
            graph_with(code).run(in_process=True).__enter__()
        assert isinstance(caught.value.__cause__, FileNotFoundError)


def test_what_needs_a_supervisor_is_refused() -> None:
    with pytest.raises(slabwire.GraphError, match="need a supervisor"):
        graph_with(burn).run(in_process=True, listen="tcp://127.0.0.1:*")  # type: ignore[call-overload]


def test_an_exception_inside_ends_it() -> None:
    clients = []
    with contextlib.suppress(LookupError), graph_with(burn).run(in_process=True) as running:
        clients.append(running.client)
        raise LookupError
    (client,) = clients
    with pytest.raises(slabwire.Disconnected):
        client.call("burn.burn", 1)
