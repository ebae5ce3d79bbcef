"""The reading end of a lane: it takes records, gives them back and ends loans."""

from __future__ import annotations

from . import fence
from .bell import BLOCKS, ROOM, WAITING_FOR, Ringer
from .errors import CorruptLane
from .lane import LOW_HALF, RECORD_NBYTES, parameters_of, tag_of
from .segment import Segment


class Consumer:
    """The reading end of a lane: `segment` is the producer's, `returns` its own. One thread, except for `release`,
    which any thread may call.

    `cursor` is the sequence number of the record that is read next. The records from `tail` up to there are being
    handled. Raises LayoutError where the two segments are not of one lane, CorruptLane for a head that cannot be right.
    """

    def __init__(self, lane: int, segment: Segment, returns: Segment, producer: Ringer) -> None:
        self.lane = lane
        self.segment = segment
        self.returns = returns
        self.producer = producer
        # Kept here, because leases may end after the interpreter has emptied the modules.
        self._waiting_for, self._blocks, self._fence = WAITING_FOR, BLOCKS, fence
        self.keeps: object = None  # what must live as long as this end and any lease of this lane
        self.capacity, self.leases = parameters_of(segment, returns)
        self._words, self._theirs = returns.words, segment.words
        self._bytes = segment.bytes
        self._head_word, self._tail_word = segment.placed.word("head"), returns.placed.word("tail")
        self._released = returns.placed.word("released")
        self._read, self._streams = returns.placed.word("read"), returns.placed.rows("read")
        self._high_water, self._refused = (returns.placed.word(each) for each in ("high_water", "refused"))
        self.ring = segment.placed["record"]
        self.high_water = self._words[self._high_water]
        self.head = self.tail = self.cursor = self._words[self._tail_word]
        self.available()

    def available(self) -> int:
        """How many records wait to be read. Reads the producer's head only when no record is known to wait.

        Raises CorruptLane if the producer's index cannot be right.
        """
        if self.cursor == self.head:
            # pairs with: Producer.publish
            head = self._theirs[self._head_word]
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

    def read_head(self) -> int:
        """The number of the record that is published next, read from the producer's head now. Raises CorruptLane."""
        # pairs with: Producer.publish
        self._take_note(self._theirs[self._head_word])
        return self.head

    def waiting(self) -> int:
        """All records not given back, also those that arrived since `available` last read the head."""
        # pairs with: Producer.publish
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
        """Gives back the record at the cursor, or several records from there on. They are never read again."""
        if not fence.KEEPS_ORDER:
            fence.full_barrier()
        self.tail = self.cursor = tail = self.cursor + records
        # pairs with: Producer.free_records, Producer.waiting
        self._words[self._tail_word] = tail
        # pairs with: Bell.park
        waiting = self.producer.words[WAITING_FOR]
        if waiting & ROOM:
            self.producer.ring_for(waiting)

    def note_read(self, stream: int, items: int) -> None:
        """Tells how many items of a stream have been read in all. Any thread, one at a time for each stream."""
        word = tag_of(stream) << 32 | items & LOW_HALF
        # pairs with: Producer.items_read
        self._words[self._read + stream % self._streams] = word
        self.producer.ring(ROOM)

    def release(self, row: int, generation: int) -> None:
        """Ends a loan. Idempotent; may run in any thread, inside any function."""
        if not self._fence.KEEPS_ORDER:
            self._fence.full_barrier()
        words, at = self._words, self._released + row
        if words[at] < generation:  # a late second call must not take back the end of the row's next loan
            # pairs with: Producer.reap, Producer.lend_again, Producer._find_unfinished
            words[at] = generation
            # pairs with: Bell.park
            waiting = self.producer.words[self._waiting_for]
            if waiting & self._blocks:
                self.producer.ring_for(waiting)

    def release_all_but(self, rows: set[int]) -> None:
        """Ends every loan that a predecessor held, except those in `rows`, which are still needed.

        Loans of records published from now on have generations above the head and are not touched.
        """
        head = self.head  # the caller has read the records up to here; nobody holds a lease of a later one
        for row in range(self.leases):
            if row not in rows and self._words[self._released + row] < head:
                # pairs with: Producer.reap, Producer.lend_again, Producer._find_unfinished
                self._words[self._released + row] = head
        self.producer.ring(BLOCKS)
