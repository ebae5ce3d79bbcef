"""A worker that leaves: what has not begun is its successor's."""

from __future__ import annotations

import asyncio
import os
import signal
from concurrent.futures import ThreadPoolExecutor

from slabwire import Actor, Graph


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
