"""A graph that stops though work is in flight: every caller hears of it, whoever stops it is told, nothing crashes."""

from __future__ import annotations

import asyncio
import itertools
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest

import slabwire
from chat_service import serving, user
from slabwire import Actor, Graph
from slabwire.cli.exits import Exit
from slabwire.runtime.clients.control import Control
from slabwire.runtime.control.verbs import Restart, Status
from slabwire.runtime.errors import ClientClosed
from slabwire.runtime.host.run_directory import graph_directory
from slabwire.runtime.postmortem.report_store import reports
from tiny_llm import write_tiny_llm
from waiting import wait_until, worker_of

SHORT_S = 0.2
ENDED = (slabwire.Interrupted, slabwire.Draining)


class Endless(Actor):
    """Handlers of every kind that never end, each holding what it was sent."""

    def __init__(self, folder: str = "") -> None:
        self.folder = Path(folder)

    def generator(self, x: Any) -> Iterator[Any]:
        while True:
            yield 0
            time.sleep(0.001)

    async def coroutine(self, x: Any) -> Any:
        await asyncio.Event().wait()

    async def async_generator(self, x: Any) -> AsyncIterator[Any]:
        yield 0
        async for item in self._inner():
            yield item

    async def _inner(self) -> AsyncIterator[Any]:
        news: asyncio.Queue[Any] = asyncio.Queue()
        while True:
            yield await news.get()

    async def chained(self, x: Any) -> AsyncIterator[Any]:
        async for item in self.stream("other.async_generator", x):
            yield item

    async def tidies(self, x: Any) -> Any:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            (self.folder / f"tidied-{uuid4()}").write_text(str(float(x.sum())))

    def slow(self, x: Any) -> None:
        time.sleep(1.0)

    @slabwire.batched(max_size=64, max_wait_s=60.0)
    def batch(self, xs: list[Any]) -> list[Any]:
        return xs


STREAMS = ("generator", "async_generator", "chained")
CALLS = ("coroutine", "tidies", "slow", "batch")


def endless(folder: Path, **settings: Any) -> Graph:
    graph = Graph("endless")
    actor = graph.add(Endless, name="endless", folder=str(folder), **settings)
    graph.add(Endless, name="other")
    graph.expose(*(getattr(actor, each) for each in (*STREAMS, *CALLS)))
    return graph


class Callers:
    """Calls in threads of their own, and what becomes of them."""

    def __init__(self) -> None:
        self.heard: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def start(self, work: Callable[[], Any]) -> None:
        def run() -> None:
            try:
                work()
                self.heard.put(None)
            except BaseException as error:
                self.heard.put(error)

        self._threads.append(threading.Thread(target=run))
        self._threads[-1].start()

    def read(self, client: Any, port: str, x: Any) -> None:
        began = threading.Event()

        def work() -> None:
            for _ in client.stream(port, x):
                began.set()

        self.start(work)
        began.wait()

    def ended(self) -> list[BaseException | None]:
        for each in self._threads:
            each.join()
        return [self.heard.get() for _ in self._threads]


def in_flight(running: Any, actor: str = "endless") -> int:
    return sum(
        each["in_flight"] + each["waiting"]
        for worker in running.status()["workers"]
        for each in worker["actors"]
        if each["name"] == actor
    )


def test_calls_that_are_cut_off_end_with_an_error(tmp_path: Path) -> None:
    """Of every kind of handler, with an input in the record and one in a block; the work tidies up before it ends."""
    callers = Callers()
    with endless(tmp_path).run(drain_timeout_s=SHORT_S) as running, slabwire.connect("endless") as client:
        for port, nbytes in itertools.product(("coroutine", "batch", "tidies"), (8, 80_000)):
            for caller in (client, running.client):
                callers.start(partial(caller.call, f"endless.{port}", np.ones(nbytes // 8)))
        wait_until(lambda: in_flight(running) == 12)
        assert running.stop() == Exit.UNCLEAN
        assert {type(each) for each in callers.ended()} == {slabwire.Interrupted}
    assert running.stopped.cut_off == {"endless": 12}
    assert len(list(tmp_path.glob("tidied-*"))) == 4


def test_what_blocks_its_process_is_answered_and_what_waits_behind_it_is_refused(tmp_path: Path) -> None:
    callers = Callers()
    with endless(tmp_path).run(drain_timeout_s=SHORT_S) as running, slabwire.connect("endless") as client:
        for _ in range(3):
            callers.start(lambda: client.call("endless.slow", 0))
        wait_until(lambda: in_flight(running) == 3)
        assert running.stop() == Exit.UNCLEAN
        kinds = sorted(type(each).__name__ for each in callers.ended())
    assert kinds == ["Draining", "Draining", "NoneType"]
    assert running.stopped.cut_off == {"endless": 3}


def test_streams_that_are_cut_off_end_with_an_error(tmp_path: Path) -> None:
    callers = Callers()
    with endless(tmp_path).run(drain_timeout_s=SHORT_S) as running, slabwire.connect("endless") as client:
        for port, reader in itertools.product(STREAMS, (client, running.client)):
            callers.read(reader, f"endless.{port}", np.ones(10_000))
        assert running.stop() == Exit.UNCLEAN
    assert {type(each) for each in callers.ended()} == {slabwire.Interrupted}
    assert running.stopped.cut_off == {"endless": 6, "other": 2}
    assert not running.stopped.failed
    assert not list(reports("endless"))


def test_what_waits_for_its_turn_is_told_that_it_had_not_begun(tmp_path: Path) -> None:
    callers = Callers()
    with (
        endless(tmp_path, concurrency=1).run(drain_timeout_s=SHORT_S) as running,
        slabwire.connect("endless") as client,
    ):
        callers.start(lambda: client.call("endless.coroutine", 0))
        wait_until(lambda: in_flight(running) == 1)
        for _ in range(3):
            callers.start(lambda: client.call("endless.coroutine", 0))
        wait_until(lambda: in_flight(running) == 4)
        running.stop()
        kinds = sorted(type(each).__name__ for each in callers.ended())
    assert kinds == ["Draining", "Draining", "Draining", "Interrupted"]
    assert running.stopped.cut_off == {"endless": 1}


def test_remote_clients_hear_of_it_too(tmp_path: Path) -> None:
    callers = Callers()
    with endless(tmp_path).run(drain_timeout_s=SHORT_S, listen="tcp://127.0.0.1:0") as running:
        address = running.status()["gateway"]["listen"][0]
        with slabwire.connect(address) as client:
            callers.read(client, "endless.async_generator", 0)
            callers.start(lambda: client.call("endless.coroutine", 0))
            wait_until(lambda: in_flight(running) == 2)
            running.stop()
            assert {type(each) for each in callers.ended()} == {slabwire.Interrupted}


def test_asyncio_clients_hear_of_it_and_may_be_closed_with_streams_open(tmp_path: Path) -> None:
    async def read(client: Any, port: str, began: asyncio.Event) -> None:
        async for _ in client.stream(port, np.ones(1000)):
            began.set()

    async def scene(address: str | None) -> list[Any]:
        launch = endless(tmp_path).run(drain_timeout_s=SHORT_S, listen="tcp://127.0.0.1:0")
        async with launch as running:
            where = (await running.status())["gateway"]["listen"][0] if address else "endless"
            client = await slabwire.connect_async(where).open()
            left = await slabwire.connect_async(where).open()
            began = [asyncio.Event() for _ in range(4)]
            readers = [(client, 0), (client, 1), (left, 2), (running.client, 3)]
            tasks = [
                asyncio.create_task(read(each, f"endless.{STREAMS[number % 3]}", began[number]))
                for each, number in readers
            ]
            tasks.append(asyncio.create_task(client.call("endless.coroutine", 0)))
            for each in began:
                await each.wait()
            await left.close()
            with pytest.raises(ClientClosed if not address else slabwire.Disconnected):
                await tasks.pop(2)
        errors = await asyncio.gather(*tasks, return_exceptions=True)
        await client.close()
        return errors

    for address in (None, "tcp"):
        errors = asyncio.run(scene(address))
        assert {type(each) for each in errors} == {slabwire.Interrupted}, errors


def test_whoever_leaves_the_with_reads_no_more_and_waits_for_nothing(tmp_path: Path) -> None:
    with endless(tmp_path).run(drain_timeout_s=3600) as running:
        stream = running.client.stream("endless.generator", 0)
        next(stream)
    with pytest.raises(ClientClosed):
        for _ in stream:
            pass
    assert running.stopped.is_clean

    async def scene() -> None:
        async with endless(tmp_path).run(drain_timeout_s=3600) as running:
            stream = running.client.stream("endless.generator", 0)
            await anext(stream)
        with pytest.raises(ClientClosed):
            async for _ in stream:
                pass

    asyncio.run(scene())


@pytest.mark.long  # threads of one process race for the last answers
@pytest.mark.parametrize("in_thread", [False, True])
def test_in_one_process_it_is_the_same(tmp_path: Path, in_thread: bool) -> None:
    async def scene() -> tuple[list[Any], Any]:
        launch = endless(tmp_path).run(in_process=True, drain_timeout_s=SHORT_S)
        async with launch as running:
            tasks = [asyncio.create_task(running.client.call("endless.tidies", np.ones(10_000)))]
            tasks.append(asyncio.create_task(running.client.call("endless.coroutine", 0)))
            while running.running.status()["workers"][0]["actors"][0]["in_flight"] < 2:
                await asyncio.sleep(0.001)
        return await asyncio.gather(*tasks, return_exceptions=True), running.running.stopped

    if in_thread:
        errors, stopped = asyncio.run(scene())
        assert {type(each) for each in errors} == {slabwire.Interrupted}, errors
        assert stopped.cut_off == {"endless": 2}
    else:
        callers = Callers()
        with endless(tmp_path).run(in_process=True, drain_timeout_s=SHORT_S) as running:
            callers.read(running.client, "endless.generator", np.ones(10_000))
            callers.start(lambda: running.client.call("endless.tidies", np.ones(10_000)))
            wait_until(lambda: in_flight(running) == 2)
        assert {type(each) for each in callers.ended()} == {slabwire.Interrupted}
        assert running.stopped.cut_off == {"endless": 2}
    assert [each.read_text() for each in tmp_path.glob("tidied-*")] == ["10000.0"]


def test_a_chat_that_is_cut_off_ends_with_an_event_and_no_crash(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Over HTTPS, past a cache, by a model with pages and a stream of tokens that is not over."""
    llm = str(write_tiny_llm(tmp_path))
    with serving(tmp_path, llm, drain_timeout_s=SHORT_S, context=1 << 14) as service:
        with service.stream(user("on and on"), max_tokens=16_000) as stream:
            stream.until_text()
            caplog.clear()
            assert service.running.stop() == Exit.UNCLEAN
            events = stream.rest()
        found = list(reports("chat"))
    assert events[-1]["error"]["code"] == "interrupted"
    assert set(service.running.stopped.cut_off) == {"llm"}
    assert not service.running.stopped.failed
    assert not found


@pytest.mark.long  # it is waited for, and killed
def test_a_model_that_hangs_leaves_nobody_without_an_event(tmp_path: Path) -> None:
    llm = str(write_tiny_llm(tmp_path))
    with (
        serving(tmp_path, llm, drain_timeout_s=SHORT_S, context=1 << 14) as service,
        service.stream(user("on and on"), max_tokens=16_000) as stream,
    ):
        stream.until_text()
        os.kill(service.pid("llm"), signal.SIGSTOP)
        os.kill(service.pid("cache"), signal.SIGSTOP)
        assert service.running.stop() == Exit.UNCLEAN
        events = stream.rest()
    assert events[-1]["error"]["code"] == "interrupted"
    assert service.running.stopped.failed == dict.fromkeys(("cache", "llm"), "did not stop in time and was killed")


class Untidy(Actor):
    """Ends badly, as it is told."""

    def __init__(self, how: str) -> None:
        self.how = how

    async def on_start(self) -> None:
        if self.how == "stubborn":
            self.task = asyncio.create_task(self._stay())

    async def _stay(self) -> None:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                continue

    def on_stop(self) -> None:
        if self.how == "signal":
            os.kill(os.getpid(), signal.SIGSEGV)
        if self.how == "raises":
            raise RuntimeError("no disk for what it knows")

    def use(self) -> str:
        return self.how


@pytest.mark.parametrize(
    ("how", "words"),
    [("signal", "killed by SIGSEGV"), ("raises", "RuntimeError: no disk for what it knows"), ("stubborn", "")],
)
def test_a_crash_while_it_stops_is_a_crash(how: str, words: str) -> None:
    graph = Graph(f"untidy-{how}")
    graph.expose(graph.add(Untidy, name="untidy", how=how).use)
    with graph.run() as running:
        assert running.client.call("untidy.use") == how
        pid = worker_of(running, "untidy")["pid"]
        status = running.stop()
    found = [each for each in reports(graph.name) if each["pid"] == pid]
    if not words:  # what swallows its cancel is left to the kernel: that is no crash
        assert (status, running.stopped.failed, found) == (0, {}, [])
        return
    assert status == Exit.UNCLEAN
    assert words in running.stopped.failed["untidy"]
    assert running.stopped.failed["untidy"].endswith("while it stopped")
    assert f"slabwire logs {graph.name} --crash" in running.stopped.text(graph.name)
    assert [(each["worker"], each["next"]) for each in found] == [
        ("untidy", "the graph is stopping: it is not started again")
    ]


def test_a_warning_says_what_the_end_of_the_with_has_cut_off(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    callers = Callers()
    with endless(tmp_path).run(drain_timeout_s=SHORT_S) as running:
        callers.read(running.client, "endless.generator", 0)
    callers.ended()
    assert "graph endless was stopped: 1 message was cut off (endless 1)" in caplog.text


FILE = """
import asyncio
from slabwire import Actor, Graph
class Waits(Actor):
    async def wait(self) -> None:
        await asyncio.Event().wait()
graph = Graph("waits")
graph.expose(graph.add(Waits, name="waits").wait)
"""


@pytest.mark.parametrize("way", ["run", "stop", "now"])
def test_the_command_line_says_what_was_cut_off(tmp_path: Path, way: str) -> None:
    (tmp_path / "waits.py").write_text(FILE)
    command = [sys.executable, "-m", "slabwire"]
    words = [*command, "run", "waits.py", "--drain-timeout", "0.2", "--no-plan"]
    graph = subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert graph.stdout is not None
    assert any("is ready" in line for line in graph.stdout)  # Ctrl-C before that ends a start
    with slabwire.connect("waits", wait_s=60) as client:
        callers = Callers()
        callers.start(lambda: client.call("waits.wait"))

        def is_in_flight() -> bool:
            with Control("waits") as control:
                return bool(control.request(Status())["workers"][0]["actors"][0]["in_flight"] == 1)

        wait_until(is_in_flight)
        if way == "run":
            graph.send_signal(signal.SIGINT)
        else:
            options = ["--now"] if way == "now" else []
            stopped = subprocess.run([*command, "stop", "waits", *options], check=False, capture_output=True, text=True)
            assert stopped.returncode == Exit.UNCLEAN
            assert stopped.stdout.endswith("s: 1 message was cut off (waits 1)\n")
        output, _ = graph.communicate()
        (error,) = callers.ended()
    assert graph.returncode == Exit.UNCLEAN
    assert "waits was stopped: 1 message was cut off (waits 1)" in output
    assert isinstance(error, slabwire.Disconnected if way == "now" else slabwire.Interrupted)
    assert not graph_directory("waits").exists()


class Patient(Actor):
    """Looks at its input when it is told."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    async def total(self, x: np.ndarray) -> list[Any]:
        (self.folder / f"began-{self.context.attempt}").touch()
        while not (self.folder / "go").exists():
            await asyncio.sleep(0.002)
        return [float(x.sum()), self.context.attempt]


@pytest.mark.long
def test_an_input_in_flight_keeps_its_block_for_the_successor(tmp_path: Path) -> None:
    """A worker that leaves as it is told lets go of nothing that its successor reads again."""
    graph = Graph("patient")
    graph.expose(
        graph.add(Patient, name="patient", folder=str(tmp_path)).total, graph.add(LastWords, name="other").size
    )
    callers: queue.SimpleQueue[Any] = queue.SimpleQueue()
    with graph.run() as running:
        client = running.client
        thread = threading.Thread(target=lambda: callers.put(client.call("patient.total", np.full(10_000, 7.0))))
        thread.start()
        wait_until(lambda: (tmp_path / "began-1").exists())
        before = worker_of(running, "patient")["pid"]
        with Control("patient") as control:
            control.request(Restart(actor="patient"))
        wait_until(lambda: worker_of(running, "patient")["pid"] not in (0, before))
        for value in range(40):  # takes every block that is free, over and over
            assert client.call("other.size", np.full(10_000, float(value))) == 10_000
        (tmp_path / "go").touch()
        thread.join()
        assert callers.get() == [70_000.0, 2]


class LastWords(Actor):
    def size(self, x: np.ndarray) -> int:
        return int(x.size)
