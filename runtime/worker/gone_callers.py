"""What a worker does when it hears that a caller is gone, or sees that it must go."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from ..cell.cell import Cell
from ..dataplane.caller import Caller
from ..dataplane.endpoint import Endpoint
from ..errors import CorruptLane
from ..message.capacities import Key

logger = logging.getLogger("slabwire")


class GoneCallers:
    """For all cells of one worker. `report(verb, **details)` tells the supervisor. One thread."""

    def __init__(
        self, cells: Mapping[str, Cell], endpoint: Endpoint, caller: Caller, report: Callable[..., None]
    ) -> None:
        self._cells = cells
        self._endpoint = endpoint
        self._caller = caller
        self._report = report
        self._early: list[Key] = []  # heard before there were any cells

    def hear(self, message: dict[str, Any]) -> None:
        """A word of the supervisor, which may be about something else."""
        if "cancelled" in message:
            self._cancel([(endpoint, request) for endpoint, request in message["cancelled"]])
        if "left" in message:
            for cell in self._cells.values():
                cell.forget_caller(message["left"])
            self._endpoint.drop_lanes(message["lanes"])
        if "gone" in message:
            for cell in self._cells.values():
                cell.forget_caller(message["gone"])
                cell.remove_lanes(message["lanes"])
            self._caller.replies = [lane for lane in self._caller.replies if lane.lane not in message["lanes"]]
            self._endpoint.drop(message["lanes"], message["gone"], message["slabs"])

    def _cancel(self, keys: list[Key]) -> None:
        if not self._cells:
            self._early += keys
        for cell in self._cells.values():
            cell.cancel(keys)

    def cells_made(self) -> None:
        """From now on cells hear for themselves."""
        self._cancel(self._early)
        self._early.clear()

    def shut_out(self, error: CorruptLane) -> None:
        """Parts with the clients whose words are impossible. Those of a worker would be a bug of ours."""
        corrupt = set(self._endpoint.corrupt)
        for cell in self._cells.values():
            corrupt |= cell.inlets.corrupt_clients() | cell.outlets.callers.corrupt()
        if not corrupt:
            raise error
        for client in corrupt:
            logger.error("client %d wrote what no client writes, and is not heard any more: %s", client, error)
            for cell in self._cells.values():
                cell.turn_out(client)
            self._report("corrupt", client=client)
        self._endpoint.corrupt.clear()
