"""The ring of records that carries one edge between two processes, and the table of what it has lent.

One producer, one consumer, each with a segment of its own that the other maps read-only. A record is written first and
published by one store of the head; it is given back by one store of the tail. A record may lend a block: the producer
notes the loan in a row of `lent`, the consumer ends it by storing the loan's generation into the same row of
`released`. The generation of a loan is the sequence number of its record plus one, so both tables need no counter of
their own and a store is idempotent.
"""

from __future__ import annotations

import struct
from typing import NamedTuple, Protocol

from . import fence
from .bell import BLOCKS, RECORDS, ROOM, WAITING_FOR, Ringer, now_ns
from .errors import CorruptLane, LayoutError
from .layout import WORD_NBYTES, Group, Layout, Word
from .returns import LOW_HALF, STREAM_SLOTS, tag_of
from .segment import Segment

RECORD_NBYTES = 256
# What becomes of messages that find the lane full, and for how long they waited; counted by whoever sends.
OUTCOMES = ("blocked", "blocked_ns", "rejected", "dropped_newest", "dropped_oldest", "expired")
LENT_NBYTES = 64
_LENT = struct.Struct("<QIIQQQ")
_LENT_REST = struct.Struct("<IIQQQ")
_LARGEST_WORD = (1 << 64) - 1

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


class Source(NamedTuple):
    """The lease that a forwarded block is held by: a row of another lane. Zeros: the block is the producer's own."""

    lane: int = 0
    row: int = 0
    generation: int = 0


class Lent(NamedTuple):
    """One loan that a predecessor made and that has not ended."""

    row: int
    generation: int
    slab: int
    block: int
    source: Source


class Holder(Protocol):
    """What a producer keeps for a loan until it ends: its own block, or the lease that it forwards."""

    def returned(self) -> None: ...

    def renew(self, nbytes: int) -> bool:
        """Its loan has ended: whether its block is for another of so many bytes, which nothing else needs it for."""
        ...


OWN = Source()


class Producer:
    """The writing end of a lane: `segment` is its own, `returns` the consumer's. One thread.

    `unfinished` are the loans of a predecessor that have not ended; whoever takes over adopts each of them. Raises
    LayoutError where the two segments are not of one lane, CorruptLane for a tail that cannot be right.
    """

    def __init__(self, segment: Segment, returns: Segment, consumer: Ringer) -> None:
        self.segment = segment
        self.returns = returns
        self.consumer = consumer
        self.capacity, self.leases = _parameters(segment, returns)
        self._words, self._theirs = segment.words, returns.words
        self._bytes = segment.bytes
        self._head_word, self._tail_word = segment.placed.word("head"), returns.placed.word("tail")
        self._lent, self._released = segment.placed["lent"], returns.placed.word("released")
        self._read = returns.placed.word("read")
        self._outcomes = segment.placed.word(OUTCOMES[0])
        self._blocked_since = segment.placed.word("blocked_since_ns")
        if since_ns := self._words[self._blocked_since]:
            # A predecessor's wait: its successor sends anew. Its words may be anything.
            self.unblock(since_ns, max(since_ns, now_ns()))
        self._ring = segment.placed["record"]
        self.head = self._words[self._head_word]
        self._tail = _checked_tail(self._theirs[self._tail_word], self.head, self.capacity)
        self.holders: dict[int, tuple[int, Holder]] = {}
        self._newest = -1  # the row of the last loan
        self.unfinished = self._find_unfinished()
        taken = {each.row for each in self.unfinished}
        self._free_rows = [row for row in reversed(range(self.leases)) if row not in taken]

    @property
    def waiting(self) -> int:
        """Records that the consumer has not given back."""
        return int(self.head - self._theirs[self._tail_word])

    def room(self, wanted: int = 1) -> int:
        """How many records may be published now. Reads the tail only when less than `wanted` seem to have room."""
        room = self.capacity - self.head + self._tail
        if room < wanted:
            self._tail = _checked_tail(self._theirs[self._tail_word], self.head, self.capacity)
            room = self.capacity - self.head + self._tail
        return room

    def slot(self, ahead: int = 0) -> int:
        """Byte offset in `segment.bytes` of the next record, or of one behind it; only while there is room."""
        return self._ring + (self.head + ahead) % self.capacity * RECORD_NBYTES

    def can_lend(self) -> bool:
        """Whether a row is free for one more loan."""
        return bool(self._free_rows) or self.reap() > 0

    def lend(self, slab: int, block: int, holder: Holder, source: Source | None = None) -> int:
        """Notes a loan for the record that is published next; returns its row. Only if `can_lend`."""
        row = self._newest = self._free_rows.pop()
        generation = self.head + 1
        start = self._lent + row * LENT_NBYTES
        if source is None:
            _LENT_REST.pack_into(self._bytes, start + WORD_NBYTES, slab, block, 0, 0, 0)
        else:
            _LENT_REST.pack_into(self._bytes, start + WORD_NBYTES, slab, block, *source)
        # One store, and after the rest: a successor never sees half of it (struct writes byte by byte).
        self._words[start // WORD_NBYTES] = generation
        self.holders[row] = (generation, holder)
        return row

    def lend_again(self, nbytes: int) -> tuple[int, Holder] | None:
        """Lends the block of the newest loan for the next record, by the same row, if that loan has ended and the block
        is free for it: the shortest way for a block from one message to the next. Row and holder, or None.
        """
        newest = self.holders.get(self._newest)
        if newest is None or self._theirs[self._released + self._newest] < newest[0] or not newest[1].renew(nbytes):
            return None
        generation = self.head + 1
        # All else in the row stands there as it must.
        self._words[(self._lent + self._newest * LENT_NBYTES) // WORD_NBYTES] = generation
        self.holders[self._newest] = generation, newest[1]
        return self._newest, newest[1]

    def take_back(self, row: int) -> None:
        """The record of this loan will not be published: an exception came in between."""
        generation, holder = self.holders[row]
        if generation > self.head:
            self._words[(self._lent + row * LENT_NBYTES) // WORD_NBYTES] = 0
            del self.holders[row]
            self._free_rows.append(row)
            holder.returned()

    def adopt(self, lent: Lent, holder: Holder) -> None:
        """Takes over a predecessor's loan."""
        self.holders[lent.row] = (lent.generation, holder)

    def publish(self, records: int = 1) -> None:
        """Makes the record written at `slot()` visible, or several from there on."""
        if not fence.KEEPS_ORDER:
            fence.full_barrier()
        self.head = head = self.head + records
        self._words[self._head_word] = head  # pairs with: Consumer.available
        if self.consumer.words[WAITING_FOR] & RECORDS:  # pairs with: Bell.park
            self.consumer.ring_always()

    def reap(self) -> int:
        """Gives back to their holders all loans that have ended; returns how many."""
        if not self.holders:
            return 0
        words, first = self._theirs, self._released
        ended = []
        for row, (generation, _) in self.holders.items():  # mostly one: a comprehension would cost more than the look
            if words[first + row] >= generation:
                ended.append(row)
        for row in ended:
            _, holder = self.holders.pop(row)
            self._free_rows.append(row)
            holder.returned()
        return len(ended)

    def end_all(self) -> None:
        """Ends every loan: the consumer is gone for good."""
        for _, holder in self.holders.values():
            holder.returned()
        self.holders.clear()

    def count(self, outcome: str, by: int = 1) -> None:
        """Counts what became of a message that found no room; `outcome` is one of OUTCOMES."""
        at = self._outcomes + OUTCOMES.index(outcome)
        self._words[at] = (self._words[at] + by) & _LARGEST_WORD

    def block(self, since_ns: int) -> None:
        """Shows that a message waits for room; of several the one that began to first."""
        if not self._words[self._blocked_since]:
            self._words[self._blocked_since] = since_ns

    def unblock(self, since_ns: int, now_ns: int) -> None:
        """A message waits no more. Others that still do show themselves when they look for room next."""
        self.count("blocked_ns", now_ns - since_ns)
        if self._words[self._blocked_since] == since_ns:
            self._words[self._blocked_since] = 0

    def stats(self) -> dict[str, int]:
        """Counters of this lane since it was made, also those of predecessors."""
        outcomes = {name: self._words[self._outcomes + index] for index, name in enumerate(OUTCOMES)}
        now = {"published": self.head, "waiting": self.waiting, "capacity": self.capacity, "lent": len(self.holders)}
        return {**now, **outcomes}

    def items_read(self, stream: int) -> int:
        """How many items of a stream its reader has read; 0 if it has not begun."""
        word = self._theirs[self._read + stream % STREAM_SLOTS]  # pairs with: Consumer.note_read
        return word & LOW_HALF if word >> 32 == tag_of(stream) else 0

    def record(self, sequence: int) -> memoryview:
        """A published record that has not been overwritten: one of the last `capacity`."""
        start = self._ring + (sequence % self.capacity) * RECORD_NBYTES
        return self._bytes[start : start + RECORD_NBYTES]

    def _find_unfinished(self) -> list[Lent]:
        found = []
        for row in range(self.leases):
            generation, slab, block, *source = _LENT.unpack_from(self._bytes, self._lent + row * LENT_NBYTES)
            if generation > self.head:
                # It died before the record was published. Another record will have this number: forget the loan.
                self._words[(self._lent + row * LENT_NBYTES) // WORD_NBYTES] = 0
            elif self._theirs[self._released + row] < generation:
                found.append(Lent(row, generation, slab, block, Source(*source)))
        return found


class Consumer:
    """The reading end of a lane: `segment` is the producer's, `returns` its own. One thread, except for `release`,
    which any thread may call.

    `cursor` is the sequence number of the record that is read next; what lies between the tail and it is being handled.
    Raises LayoutError where the two segments are not of one lane, CorruptLane for a head that cannot be right.
    """

    def __init__(self, lane: int, segment: Segment, returns: Segment, producer: Ringer) -> None:
        self.lane = lane
        self.segment = segment
        self.returns = returns
        self.producer = producer
        # Here, since leases end also when modules have been taken down.
        self._waiting_for, self._blocks, self._fence = WAITING_FOR, BLOCKS, fence
        self.keeps: object = None  # lives as long as this end, and as long as any lease of this lane
        self.capacity, self.leases = _parameters(segment, returns)
        self._words, self._theirs = returns.words, segment.words
        self._bytes = segment.bytes
        self._head_word, self._tail_word = segment.placed.word("head"), returns.placed.word("tail")
        self._released = returns.placed.word("released")
        self._read = returns.placed.word("read")
        self._high_water, self._refused = (returns.placed.word(each) for each in ("high_water", "refused"))
        self.ring = segment.placed["record"]
        self.high_water = self._words[self._high_water]
        self.tail = self.cursor = self._words[self._tail_word]
        self.head = self.tail
        self.available()

    def available(self) -> int:
        """How many records wait to be read. Reads the producer's head only when none is known of.

        Raises CorruptLane if the producer's index cannot be right.
        """
        if self.cursor == self.head:
            head = self._theirs[self._head_word]  # pairs with: Producer.publish
            if head != self.head:
                self._take_note(head)
        return self.head - self.cursor

    def _take_note(self, head: int) -> None:
        depth = head - self.tail
        if not 0 <= depth <= self.capacity or head < self.cursor:
            raise CorruptLane(f"lane {self.lane}: head {head} with tail {self.tail} and {self.capacity} records")
        self.head = head
        if depth > self.high_water:
            self.high_water = self._words[self._high_water] = depth

    def look(self) -> int:
        """The number of the record that is published next: reads the producer's head at once. Raises CorruptLane."""
        self._take_note(self._theirs[self._head_word])
        return self.head

    def waiting(self) -> int:
        """All records not given back, also those that arrived since `available` last looked."""
        return int(self._theirs[self._head_word] - self.tail)

    def stats(self) -> dict[str, int]:
        """Counters of this lane since it was made, also those of predecessors."""
        now = {"taken": self.tail, "waiting": self.waiting(), "capacity": self.capacity}
        return {**now, "high_water": self.high_water, "refused": self._words[self._refused]}

    def refuse(self) -> None:
        """Counts a record, or a message in one, that no correct peer can have written."""
        self._words[self._refused] += 1

    def offset(self) -> int:
        """Byte offset in `segment.bytes` of the record at the cursor."""
        return self.ring + self.cursor % self.capacity * RECORD_NBYTES

    def offset_of(self, sequence: int) -> int:
        """Byte offset of a record that has not been given back."""
        return self.ring + sequence % self.capacity * RECORD_NBYTES

    def record(self, sequence: int) -> memoryview:
        """A record that has not been given back."""
        start = self.offset_of(sequence)
        return self._bytes[start : start + RECORD_NBYTES]

    def commit(self, records: int = 1) -> None:
        """Gives back the record at the cursor, or several from there on; they will never be read again."""
        if not fence.KEEPS_ORDER:
            fence.full_barrier()
        self.tail = self.cursor = tail = self.cursor + records
        self._words[self._tail_word] = tail  # pairs with: Producer.room
        if self.producer.words[WAITING_FOR] & ROOM:  # pairs with: Bell.park
            self.producer.ring_always()

    def note_read(self, stream: int, items: int) -> None:
        """Tells how many items of a stream have been read in all. Any thread, one at a time for each stream."""
        word = tag_of(stream) << 32 | items & LOW_HALF
        self._words[self._read + stream % STREAM_SLOTS] = word  # pairs with: Producer.items_read
        self.producer.ring(ROOM)

    def release(self, row: int, generation: int) -> None:
        """Ends a loan. Idempotent; may run in any thread, inside any function."""
        if not self._fence.KEEPS_ORDER:
            self._fence.full_barrier()
        words, at = self._words, self._released + row
        if words[at] < generation:  # said again later, it must not take back the end of the row's next loan
            words[at] = generation  # pairs with: Producer.reap
            if self.producer.words[self._waiting_for] & self._blocks:  # pairs with: Bell.park
                self.producer.ring_always()

    def release_all_but(self, rows: set[int]) -> None:
        """Ends every loan that a predecessor held, but for those in `rows`, which are still needed.

        Loans of records published from now on have generations above the head and are not touched.
        """
        head = self.head  # up to here the caller has looked at the records; later ones are nobody's yet
        for row in range(self.leases):
            if row not in rows and self._words[self._released + row] < head:
                self._words[self._released + row] = head
        self.producer.ring(BLOCKS)


def _parameters(segment: Segment, returns: Segment) -> tuple[int, int]:
    """Capacity and rows for loans."""
    leases = returns.placed.rows("released")
    if segment.placed.rows("lent") != leases:
        raise LayoutError(f"a lane with {segment.placed.rows('lent')} rows for loans, and returns with {leases}")
    return segment.placed.rows("record"), leases


def _checked_tail(tail: int, head: int, capacity: int) -> int:
    if not head - capacity <= tail <= head:
        raise CorruptLane(f"tail {tail} of a lane with head {head} and {capacity} records")
    return tail
