"""By what a worker is connected: what the supervisor hands over, each piece put where it belongs; callers that go."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from ...shm.consumer import Consumer
from ...shm.inflight import INFLIGHT, Inflight
from ...shm.producer import Producer
from ...shm.segment import Segment
from ..cell.cell import Cell
from ..cell.work import cause
from ..control.channel import (
    Assignment,
    Cancelled,
    EverythingMine,
    Gone,
    KeptOffer,
    LaneOffer,
    Left,
    News,
    Offer,
    RecorderOffer,
    Shrunk,
    SocketOffer,
    TableOffer,
)
from ..control.worker_line import Corrupt, Report
from ..dataplane.caller import Caller
from ..dataplane.custody import Custody
from ..dataplane.descriptor_channel import Link
from ..dataplane.endpoint import Endpoint, is_callee
from ..errors import CorruptLane, Disconnected
from ..graph.compiled import Routing
from ..message.capacities import FIRST_CLIENT, Key
from ..message.header import read_header
from ..telemetry.flight_recorder import RECORDER, Recorder
from ..telemetry.stats import STATS, WorkerStats
from .lease_report import origin_of_work, receiver

logger = logging.getLogger("slabwire")


class Wiring:
    """Of one worker: its endpoint, its calls, its tables and counters. It listens to the supervisor. One thread.

    Lanes, and word of callers that are gone, that come before the actors are there wait for `cells_made`.
    `report(report)` tells the supervisor.
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
        self.caller = Caller(self.endpoint, routing, sum(each.calls for each in actors), cause)
        self.custody = Custody(link.ask, routing)
        self._report = report
        self.tables: dict[str, Inflight] = {}
        self.stats_segment: Segment | None = None
        self.stats: WorkerStats | None = None
        self.recorder: Recorder | None = None
        self._early: list[tuple[LaneOffer, Producer | Consumer]] = []
        self._early_cancels: list[Key] = []
        link.listener = self

    def connect(self) -> tuple[Segment, Recorder]:
        """Asks for everything; the segment of the counters, and the flight recorder."""
        self._link.ask(EverythingMine())
        if self.stats_segment is None or self.recorder is None:
            raise Disconnected("the supervisor handed over no segment for counters, or none for the flight recorder")
        return self.stats_segment, self.recorder

    def cells_made(self) -> None:
        """The actors are there. Gives them what came before, and what a predecessor left."""
        self._cancel(self._early_cancels)
        self._early_cancels.clear()
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
        elif isinstance(news, Cancelled):
            self._cancel([(endpoint, request) for endpoint, request in news.requests])
        else:
            for cell in self._cells.values():
                cell.forget_caller(news.endpoint)
            if isinstance(news, Left):
                self.endpoint.drop_lanes(news.lanes)
            else:
                self._forget_client(news)

    def _forget_client(self, news: Gone) -> None:
        """Nothing of a client is needed any more."""
        for cell in self._cells.values():
            cell.remove_lanes(news.lanes)
        self.caller.replies = [lane for lane in self.caller.replies if lane.lane not in news.lanes]
        self.endpoint.drop(news.lanes, news.endpoint, news.slabs)

    def _cancel(self, keys: list[Key]) -> None:
        if not self._cells:
            self._early_cancels += keys
        for cell in self._cells.values():
            cell.cancel(keys)

    def shut_out(self, error: CorruptLane) -> None:
        """Parts with the clients whose words are impossible. Impossible words of a worker would be a bug of ours."""
        corrupt = set(self.endpoint.corrupt)
        for cell in self._cells.values():
            corrupt |= cell.corrupt_clients()
        if not corrupt:
            raise error
        for client in corrupt:
            logger.error("client %d wrote what no client writes, and is not heard any more: %s", client, error)
            for cell in self._cells.values():
                cell.turn_out(client)
            self._report(Corrupt(client))
        self.endpoint.corrupt.clear()

    def offered(self, offers: list[Offer], descriptors: list[int]) -> None:
        for offer, own in self.endpoint.take_offers(offers, descriptors):
            if isinstance(offer, KeptOffer | SocketOffer):
                self.custody.offered(offer, own[0])
                continue
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
            client = offer.peer if offer.peer >= FIRST_CLIENT else 0
            self._cells[ours].add_lane(end, offer.peer, client=client, of_items=offer.purpose == "items")
        elif offer.purpose == "edge":
            self._cells[ours].outlets.edges.setdefault(offer.edge, []).append(end)
        else:
            self._cells[ours].outlets.replies[offer.peer] = end
