"""Reports to actors that have handed a request on: what came of it, told by the actor that has answered the caller."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, cast

from ...shm.bell import now_ns
from ..dataplane.caller import Caller
from ..dataplane.endpoint import Endpoint
from ..errors import Cancelled, SlabwireError
from ..message.collected import Collected
from ..message.delegated import ReportTo
from ..message.header import Header, Kind
from ..message.payload import Payload, wire_form
from ..telemetry.stats import CellStats
from .work import REPORT_KEY, Dispatch, Work

logger = logging.getLogger("slabwire")

_LOST = "a report of a request that was handed on is lost: %s"
_NOBODY = ReportTo(0, 0, None, 0)


@dataclass(slots=True)
class _Report(Dispatch):
    """A report on its way."""

    to: ReportTo = _NOBODY


class Reports:
    """Of one actor instance: a way out of its outlets, as `ReplyLanes` is. A report is a message that nobody waits for,
    and it waits for nothing: where there is no room it is lost, and with it no more than what was kept. One thread.
    """

    def __init__(self, endpoint: Endpoint, caller: Caller, stats: CellStats) -> None:
        self._endpoint = endpoint
        self._caller = caller
        self._stats = stats

    def item(self, work: Work, value: Any) -> None:
        """One item of the stream has left."""
        self._collected(work).add(value)

    def answered(self, work: Work, value: Any) -> None:
        """The one answer has left: puts the reports behind it."""
        self._collected(work).add(value)
        values = self._collected(work).values()
        self._put(work, {"value": values[0]} if values is not None else None)

    def ended(self, work: Work) -> None:
        """The end of the stream has left."""
        values = self._collected(work).values()
        self._put(work, {"items": values} if values is not None else None)

    def failed(self, work: Work, error: SlabwireError) -> None:
        """The caller gets an error."""
        self._put(work, None, error=wire_form(error)[0])

    def cancelled(self, work: Work) -> None:
        """Nobody waits for the answer any more."""
        self._put(work, None, error=Cancelled.code)

    def lost(self, work: Work) -> None:
        """Nobody will see the answer here."""
        self._put(work, None)

    def _collected(self, work: Work) -> Collected:
        if work.collected is None:
            work.collected = Collected(max((each.nbytes for each in work.reports), default=0))
            if work.published is not None and work.published.highest():
                work.collected.drop()  # the caller has got some of it from a predecessor, which may have been different
        return work.collected

    def _put(self, work: Work, answer: dict[str, Any] | None, **error: str) -> None:
        """Puts the reports into the outbox, each with the answer if that is as small as it wants it."""
        nbytes, reports = self._collected(work).nbytes, work.reports
        work.reports, work.collected = (), None
        for to in reports:
            report = answer if answer is not None and nbytes <= to.nbytes else {"kept": False, **error}
            try:
                payload = Payload({"about": to.about, "report": report}, self._endpoint.pool, is_fields=True)
            except SlabwireError as reason:
                logger.warning(_LOST, reason)
            else:
                work.outbox.append(_Report(payload, Kind.DATA, 0, 0, REPORT_KEY, work.ordinal, to=to))
            work.ordinal += 1

    def send(self, work: Work, dispatch: Dispatch) -> bool:
        """Sends a report, or loses it."""
        try:
            self._send(work, dispatch, cast(_Report, dispatch).to)
        except SlabwireError as error:
            logger.warning(_LOST, error)
        return True

    def _send(self, work: Work, dispatch: Dispatch, to: ReportTo) -> None:
        lanes, port = self._caller.entries.opened(to.route)
        lane = lanes[to.replica]
        if not (self._caller.can_spare(lane) and dispatch.payload.can_go(lane)):
            logger.warning(_LOST, "its actor has not read the last ones")
            return
        trace = work.header.trace_high, work.header.trace_low
        about = 0, to.route, 0, 0, *trace, now_ns()
        dispatch.payload.publish(lane, Kind.DATA, 0, (0, port, 0, *about, work.lane, dispatch.ordinal, work.sequence))
        self._stats.count_sent()

    def could_go(self, _: Header, __: Dispatch) -> bool:
        """Whether `send` would get rid of one now."""
        return True
