"""What the supervisor hands over to a worker or a client: descriptors, each kind under its own label."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ..control.offers import OFFERS, BellOffer, LaneOffer, Offer, RecorderOffer, SlabOffer, StatsOffer, TableOffer
from .descriptor_channel import MOST_DESCRIPTORS
from .peers import Line, Party, SlabLine

Labelled = tuple[Offer, list[int]]


def hand_over(party: Party, offers: Iterable[Labelled]) -> None:
    """Sends offers, in as many messages as their descriptors need."""
    labels: list[Offer] = []
    descriptors: list[int] = []
    for label, own in offers:
        if len(descriptors) + len(own) > MOST_DESCRIPTORS:
            _send(party, labels, descriptors)
            labels, descriptors = [], []
        labels.append(label)
        descriptors += own
    if labels:
        _send(party, labels, descriptors)


def _send(party: Party, labels: list[Offer], descriptors: list[int]) -> None:
    party.send({"offers": [OFFERS.document(each) for each in labels]}, descriptors)


def everything_of(party: Party, lines: Iterable[Line], slabs: Mapping[int, SlabLine]) -> Iterator[Labelled]:
    """All that is a party's: at the start of a worker and of each successor, and of a client."""
    yield _bell_offer(party, party)
    for instance, table in party.tables.items():
        yield TableOffer(instance), [table.fd]
    if party.stats is not None:
        yield StatsOffer(), [party.stats.fd]
    if party.recorder is not None:
        yield RecorderOffer(), [party.recorder.fd]
    for line in lines:
        yield from line_offers(party, line)
    yield from (slab_offer(each) for each in slabs.values() if each.owner is party)


def line_offers(party: Party, line: Line) -> Iterator[Labelled]:
    """The party's ends of a lane, each behind the bell of the other end's party where the party has not got it yet."""
    for role, near, far in (("producer", line.producer, line.consumer), ("consumer", line.consumer, line.producer)):
        if near is not party:
            continue
        if far is not party and far.number not in party.given:
            yield _bell_offer(party, far)
        label = LaneOffer(line.number, role, far.number, line.purpose, line.source, line.target, line.edge)
        yield label, [line.segment.fd, line.returns.fd]


def _bell_offer(party: Party, other: Party) -> Labelled:
    party.given.add(other.number)
    return BellOffer(other.number), other.descriptors()


def slab_offer(slab: SlabLine) -> Labelled:
    """Of one slab, for its owner or a reader."""
    return SlabOffer(slab.number, slab.owner.number), [slab.segment.fd]
