"""Endpoints with lanes and slabs between them, offered as a supervisor does, without a supervisor or a graph."""

from __future__ import annotations

import os
from typing import Any

from edge import new_lane
from slabwire.runtime.dataplane.endpoint import Endpoint
from slabwire.shm.bell import BELL, new_doorbell
from slabwire.shm.consumer import Consumer
from slabwire.shm.errors import OutOfMemory
from slabwire.shm.inflight import INFLIGHT, Inflight
from slabwire.shm.layout import LINE_NBYTES
from slabwire.shm.producer import Producer
from slabwire.shm.segment import Segment
from slabwire.shm.slab import SLAB

Label = dict[str, Any]


class Exchange:
    """Holds all segments. Make everything before a process is forked: it has the descriptors, and nothing else.

    Where all ends are in this process, `may_grow` lets them ask for slabs.
    """

    def __init__(self, *endpoints: int, may_grow: bool = False) -> None:
        self.may_grow = may_grow
        self.bells = {each: (Segment.create(BELL, "a bell"), new_doorbell()) for each in endpoints}
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

    def offer(self, endpoint: Endpoint, *labels: Label) -> None:
        """Hands over what the labels say, with duplicates of its descriptors."""
        described = [(label, self._descriptors(label)) for label in labels]
        offers = [{**label, "descriptors": len(own)} for label, own in described]
        assert endpoint.take_offers(offers, [os.dup(fd) for _, own in described for fd in own]) == []

    def _descriptors(self, label: Label) -> list[int]:
        if label["what"] == "bell":
            bell, doorbell = self.bells[label["endpoint"]]
            return [bell.fd, doorbell]
        if label["what"] == "lane":
            return [each.fd for each in self.lanes[label["lane"]][2]]
        return [self.slabs[label["slab"]][1].fd]

    def offers_to(self, identifier: int) -> list[Label]:
        """All that is an endpoint's: bells first, as lanes need them."""
        bells: list[Label] = [{"what": "bell", "endpoint": each} for each in self.bells]
        lanes = [
            self.lane_offer(number, role)
            for number, (source, target, _) in self.lanes.items()
            for role, near in (("producer", source), ("consumer", target))
            if near == identifier
        ]
        return bells + lanes + [self.slab_offer(each) for each, (owner, _) in self.slabs.items() if owner == identifier]

    def lane_offer(self, number: int, role: str) -> Label:
        source, target, _ = self.lanes[number]
        peer = target if role == "producer" else source
        return {"what": "lane", "lane": number, "role": role, "peer": peer, "purpose": "edge"}

    def slab_offer(self, number: int) -> Label:
        return {"what": "slab", "slab": number, "owner": self.slabs[number][0]}

    def endpoint(self, identifier: int) -> Endpoint:
        """One end, with mappings of its own; it is still to `recover`."""

        def ask(what: str, **details: Any) -> dict[str, Any]:
            if what == "grow":
                return {"slab": self._grow(endpoint, details["block_nbytes"], details["blocks"])}
            if what == "view" and details["slab"] in self.slabs:
                self.offer(endpoint, self.slab_offer(details["slab"]))
            return {}

        endpoint = Endpoint(identifier, ask, _ignore, may_spin=False, limit_nbytes=1 << 30)
        self.offer(endpoint, *self.offers_to(identifier))
        return endpoint

    def _grow(self, endpoint: Endpoint, block_nbytes: int, blocks: int) -> int:
        if not self.may_grow:
            raise OutOfMemory("these slabs do not grow")
        number = self.add_slab(endpoint.identifier, block_nbytes, blocks)
        self.offer(endpoint, self.slab_offer(number))
        return number

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


def _ignore(_label: Label, _end: Producer | Consumer) -> None:
    """A lane is found by its number in the endpoint."""
