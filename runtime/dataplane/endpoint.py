"""A process's place on the data plane: its bell, its pool of blocks, its lanes, and the slabs that it reads."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable
from typing import Any

from ...shm.bell import BELL, BLOCKS, RECORDS, Bell, Ringer
from ...shm.consumer import Consumer
from ...shm.errors import CorruptLane, SlabwireError, StaleReference
from ...shm.huge_pages import HugePages
from ...shm.lane import LANE, RETURNS, Source
from ...shm.lease import Lease
from ...shm.ledger import Origin, user_line
from ...shm.open_calls import OpenCalls
from ...shm.pool import Pool
from ...shm.producer import Producer
from ...shm.segment import Segment
from ...shm.slab import SLAB, Slab
from ...shm.trimming import Trimmer
from ...shm.wait import AdaptiveWait
from ..control.channel import Ask, BellOffer, Grow, LaneOffer, Offer, Shrink, SlabOffer, View, descriptors_of
from ..errors import Disconnected
from ..message.capacities import FIRST_CLIENT
from ..message.encoding import decode
from ..message.header import Flag, Header
from ..message.lending import source_of
from .adoption import Adoption
from .descriptor_channel import close_all

# Members of a class are looked up by attribute, at every message.
_BLOCK, _as_tuple = Flag.BLOCK, tuple.__new__

LaneOpened = Callable[[LaneOffer, Producer | Consumer], None]


class Endpoint:
    """Built from what the supervisor offers: its bell, then peers' bells, lanes and slabs. One thread, but for leases.

    `lane_opened(offer, end)` is called for every lane that arrives. Until `recover` was called, loans and leases of a
    predecessor are as it left them.
    """

    def __init__(
        self,
        identifier: int,
        ask: Callable[[Ask], None],
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
        self._unjoined: dict[int, Slab] = {}  # own slabs that have come and that the pool does not have yet
        self._recovered = False
        self._adoption = Adoption(self._reader)
        self._adopted = self._adoption.leases
        self._has_adopted = False  # anything: to ask a dictionary of weak references costs more than most of a lease
        self.pool = Pool(self._grow, self.reap, limit_nbytes, shrink=self._shrink)
        self._trimmer = Trimmer(self.pool)
        # Debug mode: for whom a record is, and at which line.
        self.receiver: Callable[[Header], tuple[Origin, str]] = _at_user_line

    def allow_spinning(self, may_spin: bool) -> None:
        """From now on, for a worker that was moved, or whose neighbour was."""
        self._may_spin = may_spin
        if self.wait is not None:
            self.wait.may_spin = may_spin

    def take_offers(self, offers: list[Offer], descriptors: list[int]) -> list[tuple[Offer, list[int]]]:
        """Takes over bells, lanes and slabs; hands back the offers that are no business of the data plane."""
        others: list[tuple[Offer, list[int]]] = []
        at = 0
        for offer in offers:
            own = descriptors[at : at + descriptors_of(offer)]
            at += len(own)
            match offer:
                case BellOffer():
                    self._take_bell(offer, own)
                case LaneOffer():
                    self._take_lane(offer, own)
                case SlabOffer():
                    self._take_slab(offer, own)
                case _:
                    others.append((offer, own))
        close_all(descriptors[at:])
        return others

    def _take_bell(self, offer: BellOffer, descriptors: list[int]) -> None:
        own = offer.endpoint == self.identifier
        segment = Segment.open(descriptors[0], BELL, writable=own)
        segment.close_descriptor()
        if own:
            self.bell = Bell(segment, descriptors[1])
            self.open_calls = OpenCalls(segment)
            self.wait = AdaptiveWait(self.bell, may_spin=self._may_spin)
            self.ringers[self.identifier] = Ringer(segment, os.dup(descriptors[1]))
        else:
            self.ringers[offer.endpoint] = Ringer(segment, descriptors[1])

    def _take_lane(self, offer: LaneOffer, descriptors: list[int]) -> None:
        try:
            self._open_lane(offer, descriptors)
        except CorruptLane:
            if offer.peer < FIRST_CLIENT:
                raise
            self.corrupt.add(offer.peer)

    def _open_lane(self, offer: LaneOffer, descriptors: list[int]) -> None:
        sends = offer.role == "producer"
        try:
            segment = Segment.open(descriptors[0], LANE, writable=sends)
        except BaseException:
            close_all(descriptors[1:])
            raise
        segment.close_descriptor()
        returns = Segment.open(descriptors[1], RETURNS, writable=not sends)
        returns.close_descriptor()
        peer = self.ringers[offer.peer]
        if sends:
            producer = self.producers[offer.lane] = Producer(segment, returns, peer)
            self._lane_opened(offer, producer)
        else:
            consumer = self.consumers[offer.lane] = Consumer(offer.lane, segment, returns, peer)
            self._lane_opened(offer, consumer)

    def _take_slab(self, offer: SlabOffer, descriptors: list[int]) -> None:
        own = offer.owner == self.identifier
        segment = Segment.open(descriptors[0], SLAB, writable=own)
        try:
            if own:
                segment.reserve() if self._huge_pages is None else self._huge_pages.reserve(segment)
        finally:
            segment.close_descriptor()
        slab = self._readers[offer.slab] = Slab(offer.slab, segment)
        if own and self._recovered:
            self._unjoined[offer.slab] = slab
        elif own:
            self._adoption.slabs.append(slab)

    def _grow(self, block_nbytes: int, blocks: int) -> Slab:
        try:
            self.ask(Grow(block_nbytes, blocks))
            return self._unjoined.popitem()[1]  # what was offered last
        finally:
            # What Ctrl-C kept an earlier call from taking counts against the limit all the same.
            while self._unjoined:
                self.pool.join(self._unjoined.popitem()[1])

    def _shrink(self, slab: int) -> None:
        self._readers.pop(slab, None)
        self.ask(Shrink(slab))

    def _reader(self, slab: int) -> Slab:
        if slab not in self._readers:
            self.ask(View(slab))
        try:
            return self._readers[slab]
        except KeyError:
            raise StaleReference(f"slab {slab} is gone with its owner") from None

    def recover(self, kept: Iterable[tuple[int, Header]] = ()) -> None:
        """Takes over from a predecessor: what it lent and still is out, what it had been lent and still is needed.

        `kept` are the records, with their lanes, that the predecessor was still handling.
        """
        self._adoption.take_over(kept, self.consumers, self.producers.values(), self.pool)
        self._recovered = True
        self._has_adopted = bool(self._adopted)

    def adopted(self, header: Header, lane: int, sequence: int) -> Lease | None:
        """The lease that a record gave a predecessor, which has passed its block on."""
        return self._adopted.get(source_of(header, lane, sequence)) if header.flags & Flag.BLOCK else None

    def open(self, consumer: Consumer, header: Header, sequence: int) -> Any:
        """The value of a record; its arrays hold the lease of its block."""
        return decode(header, self.lease(consumer, header, sequence))

    def lease(self, consumer: Consumer, header: Header, sequence: int) -> Lease | None:
        """The lease that a record gives: when it dies, the block is released."""
        if not header.flags & _BLOCK:
            return None
        # `source_of`, without the price of a call.
        source = _as_tuple(Source, (consumer.lane, header.row, sequence + 1))
        if self._has_adopted and (adopted := self._adopted.get(source)) is not None:
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

    def kept_block(self, header: Header) -> memoryview | None:
        """The block of a record that this process or a predecessor has published, as long as nothing else was written
        into it. None for any other.
        """
        slab = self._readers.get(header.slab)
        if slab is None or header.block >= slab.blocks:
            return None
        # Above by one, it has come back and was not taken again.
        is_kept = slab.generation(header.block) - header.generation in (0, 1)
        return slab.block_bytes(header.block) if is_kept else None

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
        for producer in self.producers.values():  # noqa: SIM110 - `any` of a generator costs more than the look itself
            if producer.forwards:
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
            return 0  # the next look at the channel to the supervisor finds that out
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


def _at_user_line(header: Header) -> tuple[Origin, str]:
    return Origin("an answer", header.request, header.trace), user_line()


def is_callee(offer: LaneOffer, end: Producer | Consumer) -> bool:
    """Whether the near end of a call's or a reply's lane is an actor; else it is this process as caller."""
    return (offer.purpose != "reply") == isinstance(end, Consumer)
