"""The beginning and the end of a worker: its actors start, it retires for a successor, its loop ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from typing import Any

from ..cell.binding import binding_of
from ..cell.cell import Cell
from ..cell.own_tasks import OwnTasks
from ..control.worker_line import Drained, Report
from ..dataplane.caller import Caller

logger = logging.getLogger("slabwire")

# A worker that retires looks this often whether anything is in flight still.
_LOOK_EVERY_S = 0.005
# For cleaning up after a cancel. Of the 5 s that a worker has to stop.
END_WITHIN_S = 1.5


class Startup:
    """Begins every `on_start` in order. `awake` grows as they end: those may serve calls of the ones that have not."""

    def __init__(self, cells: Mapping[str, Cell], loop: asyncio.AbstractEventLoop, own: OwnTasks) -> None:
        self.awake: set[str] = set()
        self._loop = loop
        self._tasks: list[asyncio.Future[Any]] = []
        for name, cell in cells.items():
            task = own.start(name, cell.actor.on_start)
            if task is None:
                self.awake.add(name)
            else:
                task.add_done_callback(partial(self._ended, name))
                self._tasks.append(task)

    def _ended(self, name: str, _: asyncio.Future[Any]) -> None:
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


async def retire(
    cells: Collection[Cell],
    caller: Caller,
    own: OwnTasks,
    report: Callable[[Report], None],
    within_s: float,
    heed_cancels: Callable[[], None],
) -> None:
    """Tells the supervisor when nothing is in flight any more, or after so many seconds. Inputs wait for a successor.

    Calls of its own count, for an ingress has nothing else in flight. `heed_cancels` looks for cancels among the inputs
    that wait.
    """
    for cell in cells:
        cell.inlets.shut()
        if (binding := binding_of(cell.actor)) is not None:
            binding.retires = True
    own.drain()
    begun = left = _in_flight(cells) + caller.in_flight
    until_s = time.monotonic() + within_s
    while left and time.monotonic() < until_s:
        await asyncio.sleep(_LOOK_EVERY_S)
        heed_cancels()
        left = _in_flight(cells) + caller.in_flight
    report(Drained(begun, left))


def _in_flight(cells: Iterable[Cell]) -> int:
    """Inputs that are being handled, and those whose outputs have not left yet."""
    return sum(cell.stats()["in_flight"] or int(cell.waits_for_room()) for cell in cells)


async def end_tasks(within_s: float = END_WITHIN_S) -> bool:
    """Cancels all other tasks of the running loop, and those that they begin meanwhile, and closes its asynchronous
    generators. Whether all have ended; those that have not are named in the log.

    What is left suspended when Python takes itself down is closed in the middle of that, when half of its own modules
    are gone: asyncio's futures then crash. Here all that tasks and generators use is still there.
    """
    until_s = time.monotonic() + within_s
    own = asyncio.current_task()
    cancelled: set[asyncio.Task[object]] = set()
    while (tasks := asyncio.all_tasks() - {own}) and time.monotonic() < until_s:
        for task in tasks - cancelled:
            task.cancel()
        cancelled |= tasks
        await asyncio.wait(tasks, timeout=until_s - time.monotonic(), return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        logger.error("%s was cancelled and did not end within %g s", task.get_coro(), within_s)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(max(0.1, until_s - time.monotonic())):
            await asyncio.get_running_loop().shutdown_asyncgens()
            return not tasks
    logger.error("an asynchronous generator was closed and did not end within %g s", within_s)
    return False
