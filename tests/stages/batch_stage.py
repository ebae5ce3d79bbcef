"""An actor that sends items of many streams a step, and is killed at a named point of a batch."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import slabwire
from slabwire import Actor, IncomingStream, ReplyStream, resumable
from slabwire.runtime.cell import outlets
from slabwire.runtime.cell.outlets import Outlets
from slabwire.shm.inflight import Inflight
from slabwire.shm.producer import Producer

ITEMS = 12

# Where the source is killed: the method that marks the point, at which of its calls, and before, after or amid it.
POINTS: dict[str, tuple[type, str, int, str]] = {
    "before a batch is written": (Outlets, "publish_batch", 5, "before"),
    "when a batch is written": (Producer, "publish", 0, "before"),
    "when a batch is published": (Producer, "publish", 0, "after"),
    "when no row is noted": (Inflight, "sent_all", 5, "before"),
    "when some rows are noted": (Inflight, "sent_all", 5, "amid"),
    "when all rows are noted": (Inflight, "sent_all", 5, "after"),
    "after a batch": (Outlets, "publish_batch", 5, "after"),
    "when some streams have ended": (Inflight, "clear", 20, "after"),
}


class Source(Actor):
    """Sends each of its streams the numbers from 0 on, a step for all of them, and is killed once. Its first process
    begins when `least` streams are there.
    """

    def __init__(self, folder: str, point: str, least: int) -> None:
        self.folder = Path(folder)
        self.point = point
        self.least = least
        self.open: list[ReplyStream[int]] = []

    async def on_start(self) -> None:
        self.attempt = len(list(self.folder.glob("begun-*")))
        (self.folder / f"begun-{self.attempt}").touch()
        if self.attempt == 0 and self.point:
            arm(self.point)
        self.task = asyncio.create_task(self._run())

    @resumable
    def numbers(self, sent: int = 0) -> ReplyStream[int]:
        return self._begun(sent)

    def once(self) -> ReplyStream[int]:
        return self._begun(0)

    def _begun(self, sent: int) -> ReplyStream[int]:
        stream: ReplyStream[int] = self.reply_stream()
        stream.tag = sent
        self.open.append(stream)
        return stream

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(0.01)
            self.open = [each for each in self.open if each.is_open]
            if self.attempt == 0 and len(self.open) < self.least:
                continue  # all of them begin together
            going = [each for each in self.open if each.tag < ITEMS]
            self.publish([(each, each.tag) for each in going], ended=[each for each in self.open if each.tag >= ITEMS])
            for each in going:
                each.tag += 1


def arm(point: str) -> None:
    """Lets this process kill itself at the point."""
    owner, name, wanted, when = POINTS[point]
    calls = 0
    whole: Callable[..., Any] = getattr(owner, name)

    def struck(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == wanted and when == "amid":
            whole(args[0], args[1][: len(args[1]) // 3])
        if calls == wanted and when != "after":
            os.kill(os.getpid(), signal.SIGKILL)
        result = whole(*args, **kwargs)
        if calls == wanted and when == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    if owner is Producer:  # inside the fifth batch
        inside: Callable[..., Any] = vars(outlets)["publish_batch"]
        batches = 0

        def batch(*args: Any) -> Any:
            nonlocal batches, wanted
            batches += 1
            if batches == 5:
                wanted = calls + 1
            return inside(*args)

        vars(outlets)["publish_batch"] = batch
    setattr(owner, name, struck)


async def read_all(group: slabwire.StreamGroup, port: str, n: int) -> dict[IncomingStream, list[Any]]:
    """Of each of so many streams its items and, at the end, its error or None."""
    seen: dict[IncomingStream, list[Any]] = {group.begin(port): [] for _ in range(n)}
    while len(group):
        stream, items = await anext(group)
        seen[stream] += items
        if stream.is_over:
            seen[stream].append(stream.error)
    return seen
