"""What a worker does when it hears that a caller is gone, or sees that it must go."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from ..cell.cell import Cell
from ..control.news import Cancelled, Gone, Left
from ..control.reports import Corrupt, Report
from ..dataplane.caller import Caller
from ..dataplane.endpoint import Endpoint
from ..errors import CorruptLane
from ..message.capacities import Key

logger = logging.getLogger("slabwire")


class GoneCallers:
    """For all cells of one worker. `report(report)` tells the supervisor. One thread."""

    def __init__(
        self, cells: Mapping[str, Cell], endpoint: Endpoint, caller: Caller, report: Callable[[Report], None]
    ) -> None:
        self._cells = cells
        self._endpoint = endpoint
        self._caller = caller
        self._report = report
        self._early: list[Key] = []  # heard before there were any cells

    def told(self, news: Cancelled | Left | Gone) -> None:
        """A word of the supervisor."""
        if isinstance(news, Cancelled):
            self._cancel([(endpoint, request) for endpoint, request in news.requests])
            return
        for cell in self._cells.values():
            cell.forget_caller(news.endpoint)
        if isinstance(news, Left):
            self._endpoint.drop_lanes(news.lanes)
            return
        for cell in self._cells.values():
            cell.remove_lanes(news.lanes)
        self._caller.replies = [lane for lane in self._caller.replies if lane.lane not in news.lanes]
        self._endpoint.drop(news.lanes, news.endpoint, news.slabs)

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
            self._report(Corrupt(client))
        self._endpoint.corrupt.clear()
