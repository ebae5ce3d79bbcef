"""What the supervisor hands over to a worker or a client: descriptors, each kind under its own label."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ..control.offers import OFFERS, BellOffer, LaneOffer, Offer, RecorderOffer, SlabOffer, StatsOffer, TableOffer
from .descriptor_channel import MOST_DESCRIPTORS
from .peers import LaneRecord, Peer, SlabRecord

Labelled = tuple[Offer, list[int]]


def hand_over(peer: Peer, offers: Iterable[Labelled]) -> None:
    """Sends offers, in as many messages as their descriptors need."""
    labels: list[Offer] = []
    descriptors: list[int] = []
    for label, own in offers:
        if len(descriptors) + len(own) > MOST_DESCRIPTORS:
            _send(peer, labels, descriptors)
            labels, descriptors = [], []
        labels.append(label)
        descriptors += own
    if labels:
        _send(peer, labels, descriptors)


def _send(peer: Peer, labels: list[Offer], descriptors: list[int]) -> None:
    peer.send({"offers": [OFFERS.document(each) for each in labels]}, descriptors)


def everything_of(peer: Peer, lines: Iterable[LaneRecord], slabs: Mapping[int, SlabRecord]) -> Iterator[Labelled]:
    """All that is a peer's: at the start of a worker and of each successor, and of a client."""
    yield _bell_offer(peer, peer)
    for instance, table in peer.tables.items():
        yield TableOffer(instance), [table.fd]
    if peer.stats is not None:
        yield StatsOffer(), [peer.stats.fd]
    if peer.recorder is not None:
        yield RecorderOffer(), [peer.recorder.fd]
    for line in lines:
        yield from line_offers(peer, line)
    yield from (slab_offer(each) for each in slabs.values() if each.owner is peer)


def line_offers(peer: Peer, line: LaneRecord) -> Iterator[Labelled]:
    """The peer's ends of a lane, each behind the bell of the other end's peer where the peer has not got it yet."""
    for role, near, far in (("producer", line.producer, line.consumer), ("consumer", line.consumer, line.producer)):
        if near is not peer:
            continue
        if far is not peer and far.number not in peer.given:
            yield _bell_offer(peer, far)
        label = LaneOffer(line.number, role, far.number, line.purpose, line.source, line.target, line.edge)
        yield label, [line.segment.fd, line.returns.fd]


def _bell_offer(peer: Peer, other: Peer) -> Labelled:
    peer.given.add(other.number)
    return BellOffer(other.number), other.descriptors()


def slab_offer(slab: SlabRecord) -> Labelled:
    """Of one slab, for its owner or a reader."""
    return SlabOffer(slab.number, slab.owner.number), [slab.segment.fd]
