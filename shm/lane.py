"""The layout of a lane: the ring of records that carries one edge between two processes, and the blocks that it lends.

A lane has two segments. The producer writes the first, `LANE`, and the consumer the second, `RETURNS`; each end maps
the other's segment read-only. A record is written first and published by one store of the head. It is given back by one
store of the tail. A record may lend a block: the producer notes the loan in a row of `lent`, and the consumer ends the
loan by a store of its generation into the same row of `released`. The generation of a loan is the sequence number of
its record plus one, so that both tables need no counter of their own and a store is idempotent.
"""

from __future__ import annotations

from typing import NamedTuple

from .errors import LayoutError
from .layout import Group, Layout, Word
from .segment import Segment

RECORD_NBYTES = 256
# What becomes of messages that find the lane full, and for how long they waited; counted by their sender.
OUTCOMES = ("blocked", "blocked_ns", "rejected", "dropped_newest", "dropped_oldest", "expired")
LENT_NBYTES = 64
LOW_HALF = (1 << 32) - 1
# 2^32 divided by the golden ratio: multiplied by it, numbers that lie close together come to lie far apart (Knuth).
_SPREAD = 0x9E3779B1

LANE = Layout(
    "lane",
    Group(
        "producer",
        "producer",
        (Word("head", "records published so far", "consumer", pairs_with="waiting_for of the consumer's bell"),),
    ),
    Group(
        "outcomes",
        "producer",
        (
            *(Word(each, each.replace("_", " ") + " since the lane was made", "supervisor") for each in OUTCOMES),
            Word("blocked_since_ns", "since when a message waits for room, on CLOCK_MONOTONIC; 0: none", "supervisor"),
        ),
    ),
    Group(
        "lent_rows",
        "producer",
        (
            Word(
                "lent",
                "generation, slab, block, and the lease it forwards (lane, row, generation)",
                "producer's successor",
                nbytes=LENT_NBYTES,
            ),
        ),
        rows="leases",
    ),
    Group(
        "ring",
        "producer",
        (Word("record", "one record; published by head", "consumer", nbytes=RECORD_NBYTES, pairs_with="head"),),
        rows="capacity",
        aligned=128,
    ),
)


RETURNS = Layout(
    "returns",
    Group(
        "consumer",
        "consumer",
        (Word("tail", "records given back so far", "producer", pairs_with="waiting_for of the producer's bell"),),
    ),
    Group(
        "readings",
        "consumer",
        (
            Word("high_water", "most records that were found waiting at once", "supervisor"),
            Word("refused", "records and messages that no correct peer can have written", "supervisor"),
        ),
    ),
    Group(
        "released_rows",
        "consumer",
        (
            Word(
                "released",
                "generation of the last loan of this row that has ended",
                "producer",
                pairs_with="waiting_for of the producer's bell",
            ),
        ),
        rows="leases",
    ),
    Group(
        "read_rows",
        "consumer",
        (
            Word(
                "read",
                "of the stream in this slot: its number, and how many of its items were read",
                "producer",
                pairs_with="waiting_for of the producer's bell",
            ),
        ),
        rows="streams",
    ),
)


class Source(NamedTuple):
    """The lease that a forwarded block is held by: a row of another lane. Zeros, if the block is the producer's own."""

    lane: int = 0
    row: int = 0
    generation: int = 0


# The source of a block that is the producer's own.
OWN = Source()


def tag_of(stream: int) -> int:
    """Half a word that tells the streams of one slot apart.

    It depends on all 64 bits of a stream's number: the numbers of a process that was started again differ from those of
    its predecessor in the upper half alone.
    """
    return (stream ^ (stream >> 32) * _SPREAD) & LOW_HALF


def parameters_of(segment: Segment, returns: Segment) -> tuple[int, int]:
    """Capacity in records, and rows for loans. Raises LayoutError where the two segments are not of one lane."""
    leases = returns.placed.rows("released")
    if segment.placed.rows("lent") != leases:
        raise LayoutError(f"a lane with {segment.placed.rows('lent')} rows for loans, and returns with {leases}")
    return segment.placed.rows("record"), leases
