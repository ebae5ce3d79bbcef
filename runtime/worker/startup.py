"""The start of a worker's actors: all `on_start` at once, those that are coroutines side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from ..cell.cell import Cell
from ..cell.own_tasks import OwnTasks


class Startup:
    """Begins every `on_start` in order. `awake` grows as they end: those may serve calls of the ones that have not."""

    def __init__(self, cells: Mapping[str, Cell], loop: asyncio.AbstractEventLoop, own: OwnTasks) -> None:
        self.awake: set[str] = set()
        self._loop = loop
        self._tasks: list[asyncio.Future[Any]] = []
        for name, cell in cells.items():
            self._begin(name, own.start(name, cell.actor.on_start))

    def _begin(self, name: str, task: asyncio.Future[Any] | None) -> None:
        if task is None:
            self.awake.add(name)
            return
        task.add_done_callback(lambda _: self._ended(name))
        self._tasks.append(task)

    def _ended(self, name: str) -> None:
        self.awake.add(name)
        self._loop.stop()

    def finish(self, turn: Callable[[], Any]) -> None:
        """Takes turns until all have ended. Raises what the first to fail has raised."""
        while self._tasks:
            ended = [task for task in self._tasks if task.done()]
            for task in ended:
                task.result()
                self._tasks.remove(task)
            if self._tasks:
                turn()
