"""Endpoints with lanes and slabs between them, offered as a supervisor does, without a supervisor or a graph."""

from __future__ import annotations

import os

from edge import new_lane
from slabwire.runtime.control.channel import Ask, BellOffer, Grow, LaneOffer, SlabOffer, View
from slabwire.runtime.dataplane.endpoint import Endpoint
from slabwire.shm.bell import BELL, new_doorbell
from slabwire.shm.consumer import Consumer
from slabwire.shm.errors import OutOfMemory
from slabwire.shm.inflight import INFLIGHT, Inflight
from slabwire.shm.layout import LINE_NBYTES
from slabwire.shm.producer import Producer
from slabwire.shm.segment import Segment
from slabwire.shm.slab import SLAB

Offered = BellOffer | LaneOffer | SlabOffer


class Exchange:
    """Holds all segments. Make everything before a process is forked: it has the descriptors, and nothing else.

    Where all ends are in this process, `may_grow` lets them ask for slabs.
    """

    def __init__(self, *endpoints: int, may_grow: bool = False) -> None:
        self.may_grow = may_grow
        self.bells = {each: (Segment.create(BELL, "a bell", calls=1), new_doorbell()) for each in endpoints}
        self.tables = {each: Segment.create(INFLIGHT, "a table", inputs=8) for each in endpoints}
        self.lanes: dict[int, tuple[int, int, tuple[Segment, Segment]]] = {}
        self.slabs: dict[int, tuple[int, Segment]] = {}

    def connect(self, source: int, target: int, capacity: int = 4, leases: int = 16) -> int:
        """A lane from one endpoint to another; returns its number."""
        number = len(self.lanes) + 1
        self.lanes[number] = source, target, new_lane(capacity, leases)
        return number

    def add_slab(self, owner: int, block_nbytes: int, blocks: int) -> int:
        number = len(self.slabs) + 1
        lines = blocks * block_nbytes // LINE_NBYTES
        self.slabs[number] = owner, Segment.create(SLAB, "a slab", blocks=blocks, payload_lines=lines)
        return number

    def offer(self, endpoint: Endpoint, *offers: Offered) -> None:
        """Hands over what the offers say, with duplicates of its descriptors."""
        descriptors = [os.dup(fd) for each in offers for fd in self._descriptors(each)]
        assert endpoint.take_offers(list(offers), descriptors) == []

    def _descriptors(self, offer: Offered) -> list[int]:
        if isinstance(offer, BellOffer):
            bell, doorbell = self.bells[offer.endpoint]
            return [bell.fd, doorbell]
        if isinstance(offer, LaneOffer):
            return [each.fd for each in self.lanes[offer.lane][2]]
        return [self.slabs[offer.slab][1].fd]

    def offers_to(self, identifier: int) -> list[Offered]:
        """All that is an endpoint's: bells first, as lanes need them."""
        bells = [BellOffer(each) for each in self.bells]
        lanes = [
            self.lane_offer(number, role)
            for number, (source, target, _) in self.lanes.items()
            for role, near in (("producer", source), ("consumer", target))
            if near == identifier
        ]
        slabs = [self.slab_offer(each) for each, (owner, _) in self.slabs.items() if owner == identifier]
        return [*bells, *lanes, *slabs]

    def lane_offer(self, number: int, role: str) -> LaneOffer:
        source, target, _ = self.lanes[number]
        peer = target if role == "producer" else source
        return LaneOffer(number, role, peer, "edge", "", "")

    def slab_offer(self, number: int) -> SlabOffer:
        return SlabOffer(number, self.slabs[number][0])

    def endpoint(self, identifier: int) -> Endpoint:
        """One end, with mappings of its own; it is still to `recover`."""

        def ask(ask: Ask) -> None:
            if isinstance(ask, Grow):
                self._grow(endpoint, ask.block_nbytes, ask.blocks)
            elif isinstance(ask, View) and ask.slab in self.slabs:
                self.offer(endpoint, self.slab_offer(ask.slab))

        endpoint = Endpoint(identifier, ask, _ignore, may_spin=False, limit_nbytes=1 << 30)
        self.offer(endpoint, *self.offers_to(identifier))
        return endpoint

    def _grow(self, endpoint: Endpoint, block_nbytes: int, blocks: int) -> None:
        if not self.may_grow:
            raise OutOfMemory("these slabs do not grow")
        self.offer(endpoint, self.slab_offer(self.add_slab(endpoint.identifier, block_nbytes, blocks)))

    def table(self, identifier: int) -> Inflight:
        mapped = Segment.open(os.dup(self.tables[identifier].fd), INFLIGHT, writable=True)
        mapped.close_descriptor()
        return Inflight(mapped)

    def close(self) -> None:
        for bell, doorbell in self.bells.values():
            bell.close()
            os.close(doorbell)
        lanes = [each for _, _, segments in self.lanes.values() for each in segments]
        for segment in (*self.tables.values(), *lanes, *(segment for _, segment in self.slabs.values())):
            segment.close()


def _ignore(_offer: LaneOffer, _end: Producer | Consumer) -> None:
    """A lane is found by its number in the endpoint."""
