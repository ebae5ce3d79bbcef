"""What a process takes over from its predecessor: blocks that were lent and still are out, and leases still needed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from weakref import WeakValueDictionary

from ...shm.block import Block
from ...shm.consumer import Consumer
from ...shm.errors import CorruptLane, StaleReference
from ...shm.lane import Source
from ...shm.lease import Lease
from ...shm.pool import Pool
from ...shm.producer import Producer
from ...shm.slab import Slab
from ..message.header import Flag, Header, read_header


class _Nobody:
    """Holder of a predecessor's loan whose owner has gone."""

    def on_loan_ended(self) -> None:
        """There is nobody to give it back to."""

    def try_reuse(self, nbytes: int) -> bool:  # noqa: ARG002 - no size would do
        """It is nobody's."""
        return False


class Relay:
    """Holder of a forwarded block whose owner has gone: nobody here can look at it, but its lease must end."""

    def __init__(self, consumer: Consumer, source: Source) -> None:
        self._consumer = consumer
        self._source = source

    def on_loan_ended(self) -> None:
        self._consumer.release(self._source.row, self._source.generation)

    def try_reuse(self, nbytes: int) -> bool:  # noqa: ARG002 - no size would do
        """It is not ours."""
        return False


class Adoption:
    """Of one endpoint. `reader(number)` maps a slab of somebody else; it raises StaleReference where that is gone.

    `slabs` are the predecessor's own, as they were offered. A loan has one lease in a process, or the first of two to
    die would end it under the other. Only what a predecessor left can be met twice: as a block that it forwarded, and
    as an input that is handled again. So `leases` has these.
    """

    def __init__(self, reader: Callable[[int], Slab]) -> None:
        self._reader = reader
        self.slabs: list[Slab] = []
        self.leases: WeakValueDictionary[Source, Lease] = WeakValueDictionary()

    def take_over(
        self,
        kept: Iterable[tuple[int, Header]],
        consumers: Mapping[int, Consumer],
        producers: Iterable[Producer],
        pool: Pool,
    ) -> None:
        """`kept` are the records, with their lanes, that the predecessor was still handling."""
        needed: dict[int, set[int]] = {lane: set() for lane in consumers}
        for lane, header in kept:
            if header.flags & Flag.BLOCK and lane in needed:
                needed[lane].add(header.row)
        inherited = dict(consumers)  # asking for a slab brings news: lanes that come or go meanwhile
        for lane, consumer in inherited.items():
            needed[lane].update(_rows_waiting(consumer))
        out = self._adopt_unfinished(inherited, list(producers), needed, pool)
        for lane, consumer in inherited.items():
            consumer.release_all_but(needed[lane])
        for slab in self.slabs:
            pool.join(slab, out.get(slab.identifier))
        self.slabs.clear()

    def _adopt_unfinished(
        self, inherited: dict[int, Consumer], producers: list[Producer], needed: dict[int, set[int]], pool: Pool
    ) -> dict[int, dict[int, Block]]:
        """Finds holders for all that the predecessor lent; returns its own blocks that are out, by slab and index."""
        out: dict[int, dict[int, Block]] = {}
        own = {slab.identifier: slab for slab in self.slabs}
        for producer in producers:
            for lent in producer.unfinished:
                if lent.source.lane in inherited:
                    needed[lent.source.lane].add(lent.source.row)
                    consumer = inherited[lent.source.lane]
                    producer.adopt(lent, self._forwarded(consumer, lent.slab, lent.block, lent.source))
                elif lent.slab in own:
                    fresh = Block(pool, own[lent.slab], lent.block)
                    block = out.setdefault(lent.slab, {}).setdefault(lent.block, fresh)
                    block.lends += 1
                    producer.adopt(lent, block)
                else:
                    producer.adopt(lent, _Nobody())
            producer.unfinished.clear()
        return out

    def _forwarded(self, consumer: Consumer, slab: int, block: int, source: Source) -> Lease | Relay:
        lease = self.leases.get(source)
        if lease is None:
            try:
                reader = self._reader(slab)
            except StaleReference:
                return Relay(consumer, source)
            lease = Lease(consumer, source, reader, block, reader.generation(block), 0)
            self.leases[source] = lease
        return lease


def _rows_waiting(consumer: Consumer) -> list[int]:
    """The rows lent by records that were not given back. Behind words that are impossible there are none."""
    rows = []
    with contextlib.suppress(CorruptLane):  # the reader of this record finds out, and knows what to do about it
        for sequence in range(consumer.tail, consumer.read_head()):
            header = read_header(consumer.segment.bytes, consumer.offset_of(sequence))
            if header.flags & Flag.BLOCK:
                rows.append(header.row)
    return rows
