"""A worker that leaves: what has not begun is its successor's."""

from __future__ import annotations

import asyncio
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import slabwire
from lanes import lanes_of
from slabwire import Actor, Graph
from slabwire.runtime.clients.control import Control
from slabwire.runtime.control.verbs import Restart
from waiting import wait_until


class Lingers(Actor):
    """Has a task that takes its time to end, while calls go on coming."""

    def __init__(self) -> None:
        self.is_over = False

    async def on_start(self) -> None:
        self.task = asyncio.get_running_loop().create_task(self.linger())

    async def linger(self) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            for _ in range(50):
                await asyncio.sleep(0.01)

    def on_stop(self) -> None:
        self.is_over = True

    def look(self) -> dict[str, int]:
        return {"pid": os.getpid(), "over": self.is_over}

    async def look_twice(self) -> dict[str, int]:
        await asyncio.sleep(0)
        return self.look()


def test_no_handler_begins_after_on_stop() -> None:
    graph = Graph("leaving")
    lingers = graph.add(Lingers, restart="permanent", concurrency=4)
    graph.expose(lingers.look)
    graph.expose(lingers.look_twice)
    with graph.run() as running, ThreadPoolExecutor() as pool:
        first = running.client.call("lingers.look")["pid"]

        def call_until_replaced(port: str) -> list[dict[str, int]]:
            seen = [running.client.call(port)]
            while seen[-1]["pid"] == first:
                seen.append(running.client.call(port))
            return seen

        callers = [pool.submit(call_until_replaced, f"lingers.{port}") for port in ("look", "look_twice") * 2]
        os.kill(first, signal.SIGTERM)
        answers = [answer for caller in callers for answer in caller.result()]
    assert [each for each in answers if each["over"]] == []


class Suspect(Actor):
    """Its process dies twice while three inputs are in flight. After that each input waits for a file."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def on_drain(self) -> None:
        (self.folder / "draining").touch()

    async def work(self, n: int) -> int:
        (self.folder / f"began-{n}-{os.getpid()}").touch()
        if n == 0 and len(list(self.folder.glob("died-*"))) < 2:
            while len(list(self.folder.glob(f"began-*-{os.getpid()}"))) < 3:
                await asyncio.sleep(0.01)
            (self.folder / f"died-{os.getpid()}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        while not (self.folder / "go").exists():
            await asyncio.sleep(0.01)
        return n


def test_inputs_that_wait_for_one_in_quarantine_are_left_to_the_successor(tmp_path: Path) -> None:
    graph = Graph("quarantined")
    suspect = graph.add(Suspect, folder=str(tmp_path), concurrency=3, max_attempts=10)
    graph.expose(suspect.work)
    with graph.run() as running, ThreadPoolExecutor() as pool:
        calls = [pool.submit(running.client.call, "suspect.work", n) for n in range(3)]
        wait_until(lambda: len(list(tmp_path.glob("began-*"))) == 7)  # twice all of them, then one alone
        with Control("quarantined") as control:
            control.request(Restart("suspect", drain_timeout_s=20.0))
        wait_until(lambda: (tmp_path / "draining").exists())
        (tmp_path / "go").touch()
        assert [call.result() for call in calls] == [0, 1, 2]


def test_a_client_that_scribbles_does_not_hold_up_a_replacement(tmp_path: Path) -> None:
    graph = Graph("scribbled")
    graph.expose(graph.add(Suspect, folder=str(tmp_path), concurrency=1).work)
    with graph.run() as running, ThreadPoolExecutor() as pool, slabwire.connect("scribbled") as bad:
        good = pool.submit(running.client.call, "suspect.work", 1)
        wait_until(lambda: bool(list(tmp_path.glob("began-1-*"))))
        waiting = pool.submit(bad.call, "suspect.work", 2)
        wait_until(lambda: running.status()["workers"][0]["actors"][0]["waiting"] == 1)
        with Control("scribbled", timeout_s=60.0) as control:
            replaced = pool.submit(control.request, Restart("suspect", drain_timeout_s=50.0, wait=True))
            wait_until((tmp_path / "draining").exists)
            (entry,) = lanes_of(bad).caller._entries.values()
            entry.segment.bytes[entry.slot() : entry.slot() + 256] = bytes([99]) * 256
            entry.publish()
            with pytest.raises(slabwire.Disconnected):
                waiting.result()
            (tmp_path / "go").touch()
            assert good.result() == 1
            (outcome,) = replaced.result()["workers"]
        assert (outcome["drained"], outcome["cut_off"], outcome["error"]) == (1, 0, "")
