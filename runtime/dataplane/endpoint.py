"""A process's place on the data plane: its bell, its pool of blocks, its lanes, and the slabs that it reads."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable
from typing import Any
from weakref import WeakValueDictionary

from ...shm.bell import BELL, BLOCKS, RECORDS, Bell, Ringer
from ...shm.block import Block
from ...shm.errors import CorruptLane, SlabwireError, StaleReference
from ...shm.huge_pages import HugePages
from ...shm.lane import LANE, Consumer, Producer, Source
from ...shm.lease import Lease
from ...shm.ledger import Origin, user_line
from ...shm.open_calls import OpenCalls
from ...shm.pool import Pool
from ...shm.returns import RETURNS
from ...shm.segment import Segment
from ...shm.slab import SLAB, Slab
from ...shm.trimming import Trimmer
from ...shm.wait import AdaptiveWait
from ..errors import Disconnected
from ..message.capacities import FIRST_CLIENT
from ..message.header import Flag, Header, read_header
from ..message.payload import open_parcel, source_of
from .descriptor_channel import close_all

Ask = Callable[..., dict[str, Any]]
LaneOpened = Callable[[dict[str, Any], Producer | Consumer], None]


class _Nobody:
    """Holder of a predecessor's loan whose owner has gone."""

    def returned(self) -> None:
        """There is nobody to give it back to."""

    def renew(self, nbytes: int) -> bool:  # noqa: ARG002 - no size would do
        """It is nobody's."""
        return False


class _Relay:
    """Holder of a forwarded block whose owner has gone: nobody here can look at it, but its lease must end."""

    def __init__(self, consumer: Consumer, source: Source) -> None:
        self._consumer = consumer
        self._source = source

    def returned(self) -> None:
        self._consumer.release(self._source.row, self._source.generation)

    def renew(self, nbytes: int) -> bool:  # noqa: ARG002 - no size would do
        """It is not ours."""
        return False


class Endpoint:
    """Built from what the supervisor offers: its bell, then peers' bells, lanes and slabs. One thread, but for leases.

    `lane_opened(label, end)` is called for every lane that arrives. Until `recover` was called, loans and leases of a
    predecessor are as it left them.
    """

    def __init__(
        self,
        identifier: int,
        ask: Ask,
        lane_opened: LaneOpened,
        *,
        may_spin: bool,
        limit_nbytes: int,
        huge_pages: bool = False,
    ) -> None:
        self.identifier = identifier
        self.ask = ask
        self._lane_opened = lane_opened
        self._may_spin = may_spin
        self._huge_pages = HugePages() if huge_pages else None
        self.bell: Bell | None = None
        self.wait: AdaptiveWait | None = None  # comes with the bell
        self.open_calls = OpenCalls()  # where its peers see them once the bell is here
        self.ringers: dict[int, Ringer] = {}
        self.producers: dict[int, Producer] = {}
        self.consumers: dict[int, Consumer] = {}
        self.corrupt: set[int] = set()  # clients whose lanes held impossible words when they arrived, and were left
        self._readers: dict[int, Slab] = {}
        self._inherited: list[Slab] = []
        self._unjoined: dict[int, Slab] = {}  # own slabs that have come and that the pool does not have yet
        self._recovered = False
        # A loan has one lease in a process, or the first of two to die would end it under the other. Only what a
        # predecessor left can be met twice: as a block it forwarded, and as an input that is handled again.
        self._adopted: WeakValueDictionary[Source, Lease] = WeakValueDictionary()
        self.pool = Pool(self._grow, self.reap, limit_nbytes, shrink=self._shrink)
        self._trimmer = Trimmer(self.pool)
        # Debug mode: for whom a record is, and at which line.
        self.receiver: Callable[[Header], tuple[Origin, str]] = _whoever_runs

    def allow_spinning(self, may_spin: bool) -> None:
        """From now on, for a worker that was moved, or whose neighbour was."""
        self._may_spin = may_spin
        if self.wait is not None:
            self.wait.may_spin = may_spin

    def take_offers(
        self, offers: list[dict[str, Any]], descriptors: list[int]
    ) -> list[tuple[dict[str, Any], list[int]]]:
        """Takes over bells, lanes and slabs; hands back the offers that are no business of the data plane."""
        others, at = [], 0
        for label in offers:
            own = descriptors[at : at + label["descriptors"]]
            at += label["descriptors"]
            take = {"bell": self._take_bell, "lane": self._take_lane, "slab": self._take_slab}.get(label["what"])
            if take is None:
                others.append((label, own))
            else:
                take(label, own)
        close_all(descriptors[at:])
        return others

    def _take_bell(self, label: dict[str, Any], descriptors: list[int]) -> None:
        own = label["endpoint"] == self.identifier
        segment = Segment.open(descriptors[0], BELL, writable=own)
        segment.close_descriptor()
        if own:
            self.bell = Bell(segment, descriptors[1])
            self.open_calls = OpenCalls(segment)
            self.wait = AdaptiveWait(self.bell, may_spin=self._may_spin)
            self.ringers[self.identifier] = Ringer(segment, os.dup(descriptors[1]))
        else:
            self.ringers[label["endpoint"]] = Ringer(segment, descriptors[1])

    def _take_lane(self, label: dict[str, Any], descriptors: list[int]) -> None:
        try:
            self._open_lane(label, descriptors)
        except CorruptLane:
            if label["peer"] < FIRST_CLIENT:
                raise
            self.corrupt.add(label["peer"])

    def _open_lane(self, label: dict[str, Any], descriptors: list[int]) -> None:
        sends = label["role"] == "producer"
        try:
            segment = Segment.open(descriptors[0], LANE, writable=sends)
        except BaseException:
            close_all(descriptors[1:])
            raise
        segment.close_descriptor()
        returns = Segment.open(descriptors[1], RETURNS, writable=not sends)
        returns.close_descriptor()
        peer = self.ringers[label["peer"]]
        if sends:
            producer = self.producers[label["lane"]] = Producer(segment, returns, peer)
            self._lane_opened(label, producer)
        else:
            consumer = self.consumers[label["lane"]] = Consumer(label["lane"], segment, returns, peer)
            self._lane_opened(label, consumer)

    def _take_slab(self, label: dict[str, Any], descriptors: list[int]) -> None:
        own = label["owner"] == self.identifier
        segment = Segment.open(descriptors[0], SLAB, writable=own)
        try:
            if own:
                segment.reserve() if self._huge_pages is None else self._huge_pages.reserve(segment)
        finally:
            segment.close_descriptor()
        slab = self._readers[label["slab"]] = Slab(label["slab"], segment)
        if own and self._recovered:
            self._unjoined[label["slab"]] = slab
        elif own:
            self._inherited.append(slab)

    def _grow(self, block_nbytes: int, blocks: int) -> Slab:
        try:
            answer = self.ask("grow", block_nbytes=block_nbytes, blocks=blocks)
            return self._unjoined.pop(answer["slab"])
        finally:
            # What Ctrl-C kept an earlier call from taking counts against the limit all the same.
            while self._unjoined:
                self.pool.join(self._unjoined.popitem()[1])

    def _shrink(self, slab: int) -> None:
        self._readers.pop(slab, None)
        self.ask("shrink", slab=slab)

    def _reader(self, slab: int) -> Slab:
        if slab not in self._readers:
            self.ask("view", slab=slab)
        try:
            return self._readers[slab]
        except KeyError:
            raise StaleReference(f"slab {slab} is gone with its owner") from None

    def recover(self, kept: Iterable[tuple[int, Header]] = ()) -> None:
        """Takes over from a predecessor: what it lent and still is out, what it had been lent and still is needed.

        `kept` are the records, with their lanes, that the predecessor was still handling.
        """
        needed: dict[int, set[int]] = {lane: set() for lane in self.consumers}
        for lane, header in kept:
            if header.flags & Flag.BLOCK and lane in needed:
                needed[lane].add(header.row)
        inherited = dict(self.consumers)  # asking for a slab brings news: lanes that come or go meanwhile
        for lane, consumer in inherited.items():
            needed[lane].update(_rows_waiting(consumer))
        out = self._adopt_unfinished(inherited, needed)
        for lane, consumer in inherited.items():
            consumer.release_all_but(needed[lane])
        for slab in self._inherited:
            self.pool.join(slab, out.get(slab.identifier))
        self._inherited.clear()
        self._recovered = True

    def _adopt_unfinished(
        self, inherited: dict[int, Consumer], needed: dict[int, set[int]]
    ) -> dict[int, dict[int, Block]]:
        """Finds holders for all that the predecessor lent; returns its own blocks that are out, by slab and index."""
        out: dict[int, dict[int, Block]] = {}
        own = {slab.identifier: slab for slab in self._inherited}
        for producer in list(self.producers.values()):
            for lent in producer.unfinished:
                if lent.source.lane in inherited:
                    needed[lent.source.lane].add(lent.source.row)
                    consumer = inherited[lent.source.lane]
                    producer.adopt(lent, self._forwarded(consumer, lent.slab, lent.block, lent.source))
                elif lent.slab in own:
                    fresh = Block(self.pool, own[lent.slab], lent.block)
                    block = out.setdefault(lent.slab, {}).setdefault(lent.block, fresh)
                    block.lends += 1
                    producer.adopt(lent, block)
                else:
                    producer.adopt(lent, _Nobody())
            producer.unfinished.clear()
        return out

    def _forwarded(self, consumer: Consumer, slab: int, block: int, source: Source) -> Lease | _Relay:
        lease = self._adopted.get(source)
        if lease is None:
            try:
                reader = self._reader(slab)
            except StaleReference:
                return _Relay(consumer, source)
            lease = Lease(consumer, source, reader, block, reader.generation(block), 0)
            self._adopted[source] = lease
        return lease

    def adopted(self, header: Header, lane: int, sequence: int) -> Lease | None:
        """The lease that a record gave a predecessor, which has passed its block on."""
        return self._adopted.get(source_of(header, lane, sequence)) if header.flags & Flag.BLOCK else None

    def open(self, consumer: Consumer, header: Header, sequence: int) -> Any:
        """The value of a record; its arrays hold the lease of its block."""
        return open_parcel(header, self.lease(consumer, header, sequence))

    def lease(self, consumer: Consumer, header: Header, sequence: int) -> Lease | None:
        """The lease that a record gives: when it dies, the block is released."""
        if not header.flags & Flag.BLOCK:
            return None
        source = source_of(header, consumer.lane, sequence)
        if self._adopted and (adopted := self._adopted.get(source)) is not None:
            return adopted
        if header.row >= consumer.leases:
            raise CorruptLane(f"lane {consumer.lane} lends row {header.row} of {consumer.leases}")
        try:
            slab = self._readers.get(header.slab) or self._reader(header.slab)
            lease = Lease(consumer, source, slab, header.block, header.generation, 0)
        except StaleReference:
            consumer.release(source.row, source.generation)
            raise
        if self.pool.ledger is not None:
            self.pool.ledger.received(lease, *self.receiver(header))
        return lease

    def let_go(self, consumer: Consumer, header: Header, sequence: int) -> None:
        """Ends the loan of a record that nobody reads."""
        with contextlib.suppress(SlabwireError):  # it was none
            self.lease(consumer, header, sequence)

    def reap(self) -> None:
        """Collects all loans that have ended."""
        for producer in self.producers.values():
            if producer.holders:
                producer.reap()
        self.pool.collect()

    @property
    def forwards(self) -> bool:
        """Whether somebody else's blocks wait here for their next readers: then ended leases are news."""
        for producer in self.producers.values():
            for _, holder in producer.holders.values():
                if isinstance(holder, (Lease, _Relay)):
                    return True
        return False

    def reasons(self) -> int:
        """What a caller that sleeps is to be rung for: answers, and where it has passed on blocks of others also their
        ends, since their owners may wait for them; those of its own too where a slab could then be given back.
        """
        return RECORDS | BLOCKS if self.forwards or self._trimmer.waits_for_blocks else RECORDS

    def trim(self, now_ns: int) -> int:
        """Gives back memory that has not been needed for a while: to be called before sleeping. Returns when to look
        again, 0 for never.
        """
        try:
            self._trimmer.look(now_ns)
        except Disconnected:
            return 0  # whoever hears the supervisor next learns it
        return self._trimmer.due_ns

    def collect_forwards(self) -> None:
        """Lets go of others' blocks whose next readers are done: to be called after saying that one sleeps."""
        if self.forwards:
            self.reap()

    def drop(self, lanes: list[int], endpoint: int, slabs: list[int]) -> None:
        """Forgets a peer that is gone for good: its lanes, its bell, its slabs. Leases of its blocks live on."""
        self.drop_lanes(lanes)
        self.forget_slabs(slabs)
        ringer = self.ringers.pop(endpoint, None)
        if ringer is not None:
            ringer.close()

    def drop_lanes(self, lanes: list[int]) -> None:
        """Nobody is at their other ends any more."""
        for lane in lanes:
            self.consumers.pop(lane, None)
            producer = self.producers.pop(lane, None)
            if producer is not None:
                producer.end_all()

    def forget_slabs(self, slabs: list[int]) -> None:
        """Their owner has given them back, or is gone. Leases of their blocks live on."""
        for slab in slabs:
            self._readers.pop(slab, None)

    def close(self) -> None:
        """Gives back all descriptors; memory goes when its last array has died."""
        for ringer in self.ringers.values():
            ringer.close()
        if self.bell is not None:
            self.bell.close()
            self.bell = self.wait = None
        self.open_calls = OpenCalls()
        self.producers.clear()
        self.consumers.clear()
        self.ringers.clear()
        self._readers.clear()
        self.pool.close()


def _whoever_runs(header: Header) -> tuple[Origin, str]:
    return Origin("an answer", header.request, header.trace), user_line()


def _rows_waiting(consumer: Consumer) -> list[int]:
    """The rows lent by records that were not given back. Behind words that are impossible there are none."""
    rows = []
    with contextlib.suppress(CorruptLane):  # whoever reads this record finds out, and what to do about it
        for sequence in range(consumer.tail, consumer.look()):
            header = read_header(consumer.segment.bytes, consumer.offset_of(sequence))
            if header.flags & Flag.BLOCK:
                rows.append(header.row)
    return rows


def is_callee(label: dict[str, Any], end: Producer | Consumer) -> bool:
    """Whether the near end of a call's or a reply's lane is an actor; else it is this process as caller."""
    return bool((label["purpose"] == "call") == isinstance(end, Consumer))
