"""Who and what the switchboard connects: peers, and the lanes and slabs between them."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...shm.lane import LENT_NBYTES, OUTCOMES, RECORD_NBYTES
from ...shm.layout import WORD_NBYTES
from ...shm.segment import Segment
from ..control.channel import NEWS, News
from ..errors import SlabwireError
from ..message.header import SENT_AT
from ..spec import USUAL_CALLS
from .descriptor_channel import Channel

# What one client may make its slabs hold; a worker's limit is in its actors' memory_bytes.
CLIENT_SLABS_NBYTES = 1 << 30


@dataclass
class Peer:
    """One endpoint: a worker (`instances`) or a client (none). `given` are the peers whose bells it has."""

    number: int
    name: str
    bell: Segment
    doorbell: int
    instances: tuple[str, ...] = ()
    limit_nbytes: int = CLIENT_SLABS_NBYTES
    calls: int = USUAL_CALLS  # that it may have in flight
    channel: Channel | None = None
    given: set[int] = field(default_factory=set)
    viewed: set[int] = field(default_factory=set)  # the slabs of others that it has
    stats: Segment | None = None
    recorder: Segment | None = None
    tables: dict[str, Segment] = field(default_factory=dict)
    routes: set[int] = field(default_factory=set)
    refused: Counter[str] = field(default_factory=Counter)  # by instance: what callers that are gone had sent amiss
    is_told: bool = False  # whether the process that is there now was offered what there was when it asked

    def send(self, document: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
        """To its process, if there is one. A process that is dying misses it: its end is noticed elsewhere."""
        if self.channel is not None:
            with contextlib.suppress(SlabwireError):
                self.channel.send(document, list(descriptors))

    def tell(self, news: News) -> None:
        self.send(NEWS.document(news))

    def hang_up(self) -> None:
        """Its process is gone, or is not heard any more."""
        if self.channel is not None:
            self.channel.close()
            self.channel = None
            self.is_told = False

    def close(self) -> None:
        """Gives back its descriptors, but for those of its tables. Twice does nothing more."""
        self.hang_up()
        self.bell.close_descriptor()
        if self.doorbell >= 0:
            os.close(self.doorbell)
            self.doorbell = -1

    def begin(self) -> None:
        """A process is there that asks for everything, and has nothing yet."""
        self.given.clear()
        self.viewed.clear()
        self.is_told = True


@dataclass
class LaneRecord:
    """One lane, and its two ends. Its segments are held, not mapped: a mapping holds a descriptor of its own."""

    number: int
    segment: Segment
    returns: Segment
    producer: Peer
    consumer: Peer
    purpose: str
    source: str
    target: str
    edge: int = -1
    shown_blocked_ns: int = 0

    def waiting(self) -> int:
        tail = self.returns.load("tail")  # first: the head never falls behind a tail that was seen before it
        # Both words may be a client's, and impossible.
        return max(0, min(self.segment.load("head") - tail, self.segment.placed.rows("record")))

    def published(self) -> int:
        return self.segment.load("head")

    def stats(self) -> dict[str, int]:
        """Counters of the lane: what became of its messages, the most that waited at once."""
        outcomes = {name: self.segment.load(name) for name in (*OUTCOMES, "blocked_since_ns")}
        readings = {name: self.returns.load(name) for name in ("high_water", "refused")}
        return {"published": self.published(), "waiting": self.waiting(), **outcomes, **readings}

    def blocked_ns(self, stats: Mapping[str, int], now_ns: int) -> int:
        """For how long messages have waited for room in all, by `stats`, the one that waits now included.

        Its two words change one after the other, so what is seen in between may be less than what was shown before.
        """
        since = stats["blocked_since_ns"]
        waited = stats["blocked_ns"] + (max(0, now_ns - since) if since else 0)
        self.shown_blocked_ns = max(self.shown_blocked_ns, waited)
        return self.shown_blocked_ns

    def oldest_ns(self) -> int:
        """When the oldest message that has not been given back was sent, on CLOCK_MONOTONIC; 0 if there is none."""
        tail = self.returns.load("tail")
        if self.segment.load("head") <= tail:
            return 0
        place = self.segment.placed
        at = place["record"] + tail % place.rows("record") * RECORD_NBYTES + SENT_AT
        sent = int.from_bytes(os.pread(self.segment.fd, WORD_NBYTES, at), "little")
        return sent if self.returns.load("tail") == tail else 0  # else another record may lie there by now

    def lent(self) -> tuple[int, int]:
        """Blocks that have been lent by this lane: with messages that wait in it, and kept by their reader."""
        place, theirs = self.segment.placed, self.returns.placed
        rows = place.rows("lent")
        lent = np.frombuffer(os.pread(self.segment.fd, rows * LENT_NBYTES, place["lent"]), np.uint64)
        generations = lent[:: LENT_NBYTES // WORD_NBYTES]
        released = np.frombuffer(os.pread(self.returns.fd, rows * WORD_NBYTES, theirs["released"]), np.uint64)
        # Above the head: its writer died before it published the record.
        out = generations[(generations > released) & (generations <= self.published())]
        waiting = int((out > self.returns.load("tail")).sum())  # a loan's generation is its record's number plus 1
        return waiting, len(out) - waiting

    def close(self) -> None:
        self.segment.close()
        self.returns.close()


@dataclass
class SlabRecord:
    """One slab, and whose it is."""

    number: int
    segment: Segment
    owner: Peer
