"""A worker that is to be replaced: it takes nothing new, and sees what it has begun to its end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING

from ..control.reports import Drained, Report

if TYPE_CHECKING:
    from ..cell.cell import Cell
    from ..cell.own_tasks import OwnTasks
    from ..dataplane.caller import Caller

_LOOK_EVERY_S = 0.005


async def retire(
    cells: Collection[Cell], caller: Caller, own: OwnTasks, report: Callable[[Report], None], within_s: float
) -> None:
    """Tells the supervisor when nothing is in flight any more, or after so many seconds. Inputs wait for a successor.

    Calls of its own count, for an ingress has nothing else in flight.
    """
    for cell in cells:
        cell.inlets.shut()
    own.drain()
    begun = left = _in_flight(cells) + caller.in_flight
    until_s = time.monotonic() + within_s
    while left and time.monotonic() < until_s:
        await asyncio.sleep(_LOOK_EVERY_S)
        for cell in cells:
            cell.inlets.look_into_held()
            cell.heed_cancels()
        left = _in_flight(cells) + caller.in_flight
    report(Drained(begun, left))


def _in_flight(cells: Iterable[Cell]) -> int:
    """Inputs that are being handled, and those whose outputs have not left yet."""
    return sum(cell.stats()["in_flight"] or int(cell.waits_for_room()) for cell in cells)
