"""What a supervisor hands over: each offer is the label of the descriptors that come along with it."""

from __future__ import annotations

from typing import NamedTuple

from .schema import Schema


class Assignment(NamedTuple):
    """What a worker is to do: the graph in sealed memory, the number of its endpoint, its actors and its cores."""

    endpoint: int
    instances: list[str]
    cores: list[int]
    threads: int
    spin: bool


class BellOffer(NamedTuple):
    """One's own bell, or a peer's: a segment and an eventfd. The first bell that a client is offered is its own."""

    endpoint: int


class LaneOffer(NamedTuple):
    """One end of a lane: its segment, and the segment of its returns.

    `role` is "producer" or "consumer", `purpose` is "edge", "call" or "reply". `source` and `target` are actor
    instances or, of a client, its name. `edge` is the edge's number in the spec, -1 without one.
    """

    lane: int
    role: str
    peer: int
    purpose: str
    source: str
    target: str
    edge: int = -1


class SlabOffer(NamedTuple):
    """A slab of one's own, or of another owner (the number of its endpoint)."""

    slab: int
    owner: int


class TableOffer(NamedTuple):
    """The in-flight table of an actor instance."""

    instance: str


class StatsOffer(NamedTuple):
    """The counters of this worker."""


class RecorderOffer(NamedTuple):
    """The flight recorder of this worker."""


Offer = Assignment | BellOffer | LaneOffer | SlabOffer | TableOffer | StatsOffer | RecorderOffer
OFFERS: Schema[Offer] = Schema(
    "offer",
    {
        "assignment": Assignment,
        "bell": BellOffer,
        "lane": LaneOffer,
        "slab": SlabOffer,
        "table": TableOffer,
        "stats": StatsOffer,
        "recorder": RecorderOffer,
    },
)


def descriptors_of(offer: Offer) -> int:
    """How many descriptors come along with an offer: a bell and a lane are pairs."""
    return 2 if isinstance(offer, BellOffer | LaneOffer) else 1
