"""By what a worker is connected: what the supervisor hands over, each piece put where it belongs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ...shm.consumer import Consumer
from ...shm.inflight import INFLIGHT, Inflight
from ...shm.producer import Producer
from ...shm.segment import Segment
from ..cell.cell import Cell
from ..cell.work import cause
from ..control.asks import EverythingMine
from ..control.news import News, Shrunk
from ..control.offers import Assignment, LaneOffer, Offer, RecorderOffer, TableOffer
from ..control.reports import Report
from ..dataplane.caller import Caller
from ..dataplane.descriptor_client import Link
from ..dataplane.endpoint import Endpoint, is_callee
from ..errors import Disconnected
from ..graph.compiled import Routing
from ..message.capacities import FIRST_CLIENT
from ..message.header import read_header
from ..telemetry.flight_recorder import RECORDER, Recorder
from ..telemetry.stats import STATS, WorkerStats
from .gone_callers import GoneCallers
from .lease_report import origin_of_work, receiver


class Wiring:
    """Of one worker: its endpoint, its calls, its tables and counters. It listens to the supervisor. One thread.

    Lanes that come before their actors are there wait for `cells_made`.
    """

    def __init__(
        self,
        link: Link,
        assignment: Assignment,
        routing: Routing,
        cells: Mapping[str, Cell],
        report: Callable[[Report], None],
    ) -> None:
        self._link = link
        self._cells = cells
        actors = [routing.spec.actor(routing.actor_of[each]) for each in assignment.instances]
        self.endpoint = Endpoint(
            assignment.endpoint,
            link.ask,
            self._lane_opened,
            may_spin=assignment.spin,
            limit_nbytes=sum(each.memory_bytes for each in actors),
            huge_pages=any(each.huge_pages for each in actors),
        )
        if self.endpoint.pool.ledger is not None:
            self.endpoint.pool.ledger.origin = origin_of_work
            self.endpoint.receiver = receiver(routing, cells)
        self.caller = Caller(self.endpoint, routing, cause)
        self.gone_callers = GoneCallers(cells, self.endpoint, self.caller, report)
        self.tables: dict[str, Inflight] = {}
        self.stats_segment: Segment | None = None
        self.stats: WorkerStats | None = None
        self.recorder: Recorder | None = None
        self._early: list[tuple[LaneOffer, Producer | Consumer]] = []
        link.listener = self

    def connect(self) -> tuple[Segment, Recorder]:
        """Asks for everything; the segment of the counters, and the flight recorder."""
        self._link.ask(EverythingMine())
        if self.stats_segment is None or self.recorder is None:
            raise Disconnected("the supervisor handed over no segment for counters, or none for the flight recorder")
        return self.stats_segment, self.recorder

    def cells_made(self) -> None:
        """The actors are there. Gives them what came before, and what a predecessor left."""
        self.gone_callers.cells_made()
        for offer, end in self._early:
            self._lane_opened(offer, end)
        self._early.clear()
        kept = [
            (left.lane, read_header(table.record(left.row), 0))
            for table in self.tables.values()
            for left in table.live()
            if left.row
        ]
        self.endpoint.recover(kept)
        for cell in self._cells.values():
            cell.recover()

    def told(self, news: News) -> None:
        if isinstance(news, Shrunk):
            self.endpoint.forget_slabs(news.slabs)
        else:
            self.gone_callers.told(news)

    def offered(self, offers: list[Offer], descriptors: list[int]) -> None:
        for offer, own in self.endpoint.take_offers(offers, descriptors):
            if isinstance(offer, TableOffer):
                segment = Segment.open(own[0], INFLIGHT, writable=True)
                self.tables[offer.instance] = Inflight(segment)
            elif isinstance(offer, RecorderOffer):
                segment = Segment.open(own[0], RECORDER, writable=True)
                self.recorder = Recorder(segment)
            else:
                segment = self.stats_segment = Segment.open(own[0], STATS, writable=True)
                self.stats = WorkerStats(segment)
            segment.close_descriptor()

    def _lane_opened(self, offer: LaneOffer, end: Producer | Consumer) -> None:
        """Puts a lane where it belongs: to an actor here, or to this process as a caller."""
        ours = offer.source if isinstance(end, Producer) else offer.target
        if offer.purpose != "edge" and not is_callee(offer, end):
            self.caller.lane_opened(offer, end)
        elif ours not in self._cells:
            self._early.append((offer, end))
        elif isinstance(end, Consumer):
            self._cells[ours].inlets.add(end, client=offer.peer if offer.peer >= FIRST_CLIENT else 0)
        elif offer.purpose == "edge":
            self._cells[ours].outlets.edges.setdefault(offer.edge, []).append(end)
        else:
            self._cells[ours].outlets.replies[offer.peer] = end
