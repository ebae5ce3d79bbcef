"""What the consumer of a lane writes: how far it has read, which loans have ended, how much of streams was read."""

from __future__ import annotations

from .layout import Group, Layout, Word

# Streams that one lane can carry at a time, each with a count of what its reader has read.
STREAM_SLOTS = 128
LOW_HALF = (1 << 32) - 1
# 2^32 divided by the golden ratio: multiplied by it, numbers that lie close together come to lie far apart (Knuth).
_SPREAD = 0x9E3779B1

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
        rows=STREAM_SLOTS,
    ),
)


def tag_of(stream: int) -> int:
    """Half a word that tells streams of one slot apart, by all 64 bits of their numbers: those of a process that was
    started again differ from its predecessor's in the upper half alone.
    """
    return (stream ^ (stream >> 32) * _SPREAD) & LOW_HALF
