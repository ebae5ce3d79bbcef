"""The writing end of a lane: it publishes records and keeps what it lends with them."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple, Protocol

from . import fence
from .bell import RECORDS, WAITING_FOR, Ringer, now_ns
from .errors import CorruptLane
from .lane import (
    LENT_NBYTES,
    LOW_HALF,
    OUTCOMES,
    OWN,
    RECORD_NBYTES,
    Source,
    parameters_of,
    tag_of,
)
from .layout import WORD_NBYTES
from .segment import Segment

_LENT = struct.Struct("<QIIQQQ")
_LENT_REST = struct.Struct("<IIQQQ")
_LARGEST_WORD = (1 << 64) - 1


class Lent(NamedTuple):
    """One loan that a predecessor made and that has not ended."""

    row: int
    generation: int
    slab: int
    block: int
    source: Source


class Holder(Protocol):
    """What a producer keeps for a loan until it ends: its own block, or the lease that it forwards."""

    def on_loan_ended(self) -> None:
        """One loan of its block has ended."""

    def try_reuse(self, nbytes: int) -> bool:
        """Its loan has ended. Takes the same block for a loan of `nbytes`, if nothing else needs it; says whether."""


class Producer:
    """The writing end of a lane: `segment` is its own, `returns` the consumer's. One thread.

    `holders` has what is lent, by row, and `forwards` the rows of it that are blocks of others. `unfinished` are the
    loans of a predecessor that have not ended; its successor must `adopt` each of them. Raises LayoutError where the
    two segments are not of one lane, CorruptLane for a tail that cannot be right.
    """

    def __init__(self, segment: Segment, returns: Segment, consumer: Ringer) -> None:
        self.segment = segment
        self.returns = returns
        self.consumer = consumer
        # Wakes the consumer, which is parked by this word. Who sends several records at once may wake it later.
        self.wake: Callable[[int], None] = consumer.ring_for
        self.capacity, self.leases = parameters_of(segment, returns)
        self._words, self._theirs = segment.words, returns.words
        self._bytes = segment.bytes
        self._head_word, self._tail_word = segment.placed.word("head"), returns.placed.word("tail")
        self._lent, self._released = segment.placed["lent"], returns.placed.word("released")
        self._read, self._streams = returns.placed.word("read"), returns.placed.rows("read")
        self._outcomes = segment.placed.word(OUTCOMES[0])
        self._blocked_since = segment.placed.word("blocked_since_ns")
        if since_ns := self._words[self._blocked_since]:
            # A predecessor waited and died. Its successor sends the message again. The word may hold any number.
            self.unblock(since_ns, max(since_ns, now_ns()))
        self._ring = segment.placed["record"]
        self.head = self._words[self._head_word]
        self._tail = _checked_tail(self._theirs[self._tail_word], self.head, self.capacity)
        self.holders: dict[int, tuple[int, Holder]] = {}
        self.forwards: set[int] = set()  # the rows of blocks that are somebody else's
        self._newest = -1  # the row of the last loan
        self._is_over = False  # the consumer is gone for good
        self.unfinished = self._find_unfinished()
        taken = {each.row for each in self.unfinished}
        self._free_rows = [row for row in reversed(range(self.leases)) if row not in taken]

    @property
    def waiting(self) -> int:
        """Records that the consumer has not given back."""
        # pairs with: Consumer.commit
        return int(self.head - self._theirs[self._tail_word])

    def free_records(self, wanted: int = 1) -> int:
        """How many records may be published now. Reads the tail only when less than `wanted` records seem free."""
        room = self.capacity - self.head + self._tail
        if room < wanted:
            # pairs with: Consumer.commit
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
            self.forwards.add(row)
        # One store, after the rest of the row, so that a successor never sees half a row (struct writes byte by byte).
        # pairs with: Producer._find_unfinished
        self._words[start // WORD_NBYTES] = generation
        self.holders[row] = (generation, holder)
        return row

    def lend_again(self, nbytes: int) -> tuple[int, Holder] | None:
        """Lends the block of the newest loan with the next record, by the same row, if that loan has ended and nothing
        else needs the block: the shortest way for a block from one message to the next. Row and holder, or None.
        """
        newest = self.holders.get(self._newest)
        # pairs with: Consumer.release
        if newest is None or self._theirs[self._released + self._newest] < newest[0] or not newest[1].try_reuse(nbytes):
            return None
        generation = self.head + 1
        # The other words of the row are right already.
        # pairs with: Producer._find_unfinished
        self._words[(self._lent + self._newest * LENT_NBYTES) // WORD_NBYTES] = generation
        self.holders[self._newest] = generation, newest[1]
        return self._newest, newest[1]

    def take_back(self, row: int) -> None:
        """Ends a loan whose record will not be published, because of an exception before `publish`."""
        generation, holder = self.holders[row]
        if generation > self.head:
            self._words[(self._lent + row * LENT_NBYTES) // WORD_NBYTES] = 0
            del self.holders[row]
            self.forwards.discard(row)
            self._free_rows.append(row)
            holder.on_loan_ended()

    def adopt(self, lent: Lent, holder: Holder) -> None:
        """Takes over a predecessor's loan."""
        self.holders[lent.row] = (lent.generation, holder)
        if lent.source != OWN:
            self.forwards.add(lent.row)

    def publish(self, records: int = 1) -> None:
        """Makes the record that was written at `slot()` visible, or several records from there on."""
        if not fence.KEEPS_ORDER:
            fence.full_barrier()
        self.head = head = self.head + records
        # pairs with: Consumer.available, Consumer.read_head
        self._words[self._head_word] = head
        # pairs with: Bell.park
        waiting = self.consumer.words[WAITING_FOR]
        if waiting & RECORDS:
            self.wake(waiting)
        if self._is_over:
            self.end_all()

    def reap(self) -> int:
        """Gives back to their holders all loans that have ended; returns how many."""
        if not self.holders:
            return 0
        words, first = self._theirs, self._released
        ended = []
        # pairs with: Consumer.release
        for row, (generation, _) in self.holders.items():  # mostly one, for which a comprehension would cost more
            if words[first + row] >= generation:
                ended.append(row)
        for row in ended:
            _, holder = self.holders.pop(row)
            self._free_rows.append(row)
            holder.on_loan_ended()
        self.forwards.difference_update(ended)
        return len(ended)

    def end_all(self) -> None:
        """Ends every loan: the consumer is gone for good. That may be heard in the middle of a message, when memory is
        asked for: its loan ends as soon as it is published.
        """
        self._is_over = True
        for _, holder in self.holders.values():
            holder.on_loan_ended()
        self.holders.clear()
        self.forwards.clear()

    def count(self, outcome: str, by: int = 1) -> None:
        """Counts what became of a message that found the lane full; `outcome` is one of OUTCOMES."""
        at = self._outcomes + OUTCOMES.index(outcome)
        self._words[at] = (self._words[at] + by) & _LARGEST_WORD

    def block(self, since_ns: int) -> None:
        """Shows since when a message waits for a free record. Of several messages, the longest wait is shown."""
        if not self._words[self._blocked_since]:
            self._words[self._blocked_since] = since_ns

    def unblock(self, since_ns: int, now_ns: int) -> None:
        """Ends the wait of a message. Other waiting messages call `block` again when they next look for a record."""
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
        # pairs with: Consumer.note_read
        word = self._theirs[self._read + stream % self._streams]
        return word & LOW_HALF if word >> 32 == tag_of(stream) else 0

    def record(self, sequence: int) -> memoryview:
        """A published record that has not been overwritten: one of the last `capacity`."""
        start = self._ring + (sequence % self.capacity) * RECORD_NBYTES
        return self._bytes[start : start + RECORD_NBYTES]

    def _find_unfinished(self) -> list[Lent]:
        found = []
        # pairs with: Producer.lend, Producer.lend_again (of the predecessor), Consumer.release
        for row in range(self.leases):
            generation, slab, block, *source = _LENT.unpack_from(self._bytes, self._lent + row * LENT_NBYTES)
            if generation > self.head:
                # The predecessor died before it published the record. Another record will have this number.
                self._words[(self._lent + row * LENT_NBYTES) // WORD_NBYTES] = 0
            elif self._theirs[self._released + row] < generation:
                found.append(Lent(row, generation, slab, block, Source(*source)))
        return found


def _checked_tail(tail: int, head: int, capacity: int) -> int:
    if not head - capacity <= tail <= head:
        raise CorruptLane(f"tail {tail} of a lane with head {head} and {capacity} records")
    return tail
