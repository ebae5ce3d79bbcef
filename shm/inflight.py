"""The consumer's table of inputs that are being handled, from which a successor starts.

Row 0 says which record a plain handler is running; the record itself stays in its lane. The other rows hold copies of
inputs that outlive their call (generators, coroutines, batches), whose records have been given back.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from .lane import RECORD_NBYTES
from .layout import Group, Layout, Word
from .segment import Segment

_WAYS_BITS = 16
_PARDON = 1 << 32
INFLIGHT = Layout(
    "inflight",
    Group(
        "rows",
        "consumer",
        (
            Word("live", "1 while the row is in use; stored last, cleared first", "consumer's successor"),
            Word("lane", "the lane it came by", "consumer's successor"),
            Word("sequence", "its sequence number in that lane", "consumer's successor"),
            Word(
                "attempt",
                f"how often it was begun, plus {_PARDON} times how often its process then left as it was told",
                "consumer's successor",
            ),
            Word(
                "ordinal",
                f"outputs that were published for it, times {1 << _WAYS_BITS}, plus ways that the next has left by",
                "consumer's successor",
            ),
            Word("taken", "1 once an item of its caller's stream was taken from its lane", "consumer's successor"),
            Word("copy", "its record", "consumer's successor", nbytes=RECORD_NBYTES),
        ),
        rows="inputs",
        aligned=128,
    ),
)
RUNNING_ROW = 0


class Input(NamedTuple):
    """What a row says: which record, how often begun, how many outputs published, and by how many ways the next one.

    `pardons` of the attempts ended because the process was told to leave. `has_taken` items of its caller's stream,
    which do not come again.
    """

    row: int
    lane: int
    sequence: int
    attempt: int
    ordinal: int
    ways: int = 0
    pardons: int = 0
    has_taken: bool = False


class Inflight:
    """The table, written by the process that handles the inputs. One thread."""

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        self._words = segment.words
        self._bytes = segment.bytes
        place = next(each for each in segment.placed.places if each.word.name == "live")
        self._first, self._stride = place.offset // 8, place.stride // 8
        self._copy = segment.placed["copy"]
        self._row_nbytes = place.stride
        self.rows = place.rows
        self._running = 0  # the lane that row 0 names, for the first attempt and with nothing noted as sent
        self._free = [row for row in reversed(range(1, self.rows)) if not self._words[self._first + row * self._stride]]

    def begin_running(self, lane: int, sequence: int, attempt: int) -> None:
        """Notes in row 0 what a plain handler is about to do."""
        words, at = self._words, self._first
        if lane == self._running and attempt == 1:
            words[at + 2] = sequence  # all else stands there as it must, so one store says it
            return
        # The row may hold notes of waiting outputs (`sent`), which end here. Only behind a first attempt may the next
        # input take the short way above, for which all else in the row must be right.
        self._running = lane if attempt == 1 else 0
        if attempt > 1 and words[at] and (words[at + 1], words[at + 2]) == (lane, sequence):
            # In one store: a death in between must not make this the first attempt again.
            words[at + 3] = words[at + 3] // _PARDON * _PARDON + attempt
            return
        words[at] = 0
        words[at + 1], words[at + 2], words[at + 3], words[at + 4] = lane, sequence, attempt, 0
        words[at] = 1

    def can_keep(self) -> bool:
        return bool(self._free)

    def keep(self, lane: int, sequence: int, attempt: int, record: memoryview) -> int:
        """Copies an input into a free row, which it returns; the record may be given back after this."""
        if len(record) != RECORD_NBYTES:
            raise ValueError(f"a record has {RECORD_NBYTES} bytes, not {len(record)}")
        row = self._free.pop()
        at, copy = self._first + row * self._stride, self._copy + row * self._row_nbytes
        words = self._words
        words[at + 1], words[at + 2], words[at + 3], words[at + 4], words[at + 5] = lane, sequence, attempt, 0, 0
        self._bytes[copy : copy + RECORD_NBYTES] = record
        words[at] = 1
        return row

    def restart(self, row: int, attempt: int) -> None:
        """Counts one more attempt at a predecessor's input."""
        at = self._first + row * self._stride + 3
        self._words[at] = self._words[at] // _PARDON * _PARDON + attempt

    def pardon(self) -> None:
        """Before the process leaves as it was told: the inputs that it leaves behind are not to blame."""
        for row in range(self.rows):
            at = self._first + row * self._stride
            if self._words[at]:
                self._words[at + 3] += _PARDON

    def sent(self, row: int, ordinal: int, ways: int = 0) -> None:
        """Notes that the outputs below `ordinal` were published, and that one by its first `ways`."""
        if row == RUNNING_ROW:
            self._running = 0
        self._words[self._first + row * self._stride + 4] = ordinal << _WAYS_BITS | ways

    def sent_all(self, ordinals: Iterable[tuple[int, int]]) -> None:
        """`sent` for many rows, each with its ordinal: not for row 0."""
        words, first, stride = self._words, self._first + 4, self._stride
        for row, ordinal in ordinals:
            words[first + row * stride] = ordinal << _WAYS_BITS

    def take(self, row: int) -> None:
        """Notes that an item of its caller's stream is about to be taken: before the item is given back to its lane."""
        self._words[self._first + row * self._stride + 5] = 1

    def clear(self, row: int) -> None:
        """The input is finished. Idempotent: a row that is free twice would hold two inputs."""
        at = self._first + row * self._stride
        if self._words[at]:
            self._words[at] = 0
            if row == RUNNING_ROW:
                self._running = 0
            else:
                self._free.append(row)

    def record(self, row: int) -> memoryview:
        copy = self._copy + row * self._row_nbytes
        return self._bytes[copy : copy + RECORD_NBYTES]

    def stats(self) -> dict[str, int]:
        return {"rows": self.rows - 1, "free": len(self._free)}

    def live(self) -> list[Input]:
        """What a predecessor left: row 0 first, if a plain handler was running."""
        found = []
        for row in range(self.rows):
            at = self._first + row * self._stride
            if self._words[at]:
                lane, sequence, attempt, sent, taken = self._words[at + 1 : at + 6].tolist()
                ordinal, ways = divmod(sent, 1 << _WAYS_BITS)
                pardons, attempt = divmod(attempt, _PARDON)
                found.append(Input(row, lane, sequence, attempt, ordinal, ways, pardons, bool(taken)))
        return found


def lanes_kept(segment: Segment) -> list[int]:
    """The lanes of the inputs that have copies of their own in a table now, one for each input. Any process."""
    place = next(each for each in segment.placed.places if each.word.name == "live")
    words, first, stride = segment.words, place.offset // 8, place.stride // 8
    starts = range(first + (RUNNING_ROW + 1) * stride, first + place.rows * stride, stride)
    return [words[at + 1] for at in starts if words[at]]
