"""The flight recorder: what a worker has handled lately, input by input, in shared memory: right after kill -9.

A ring of rows, one for each input that was handled and for each turn in the life of the process. The worker is the only
writer; the supervisor maps the segment, and a successor goes on behind its predecessor's last row. A run of a plain
handler gets its row at its end, since a second store at every message costs; while it runs the in-flight table tells of
it (see `running_now`), and where it was a process's last its successor writes the row. What outlives its call has its
row from the beginning on.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ...shm.layout import LINE_NBYTES, WORD_NBYTES, Group, Layout, Word
from ...shm.segment import Segment
from ..errors import Cancelled, DeadLetter, DeadlineExceeded, SlabwireError
from ..message.header import Header


class Handled(Protocol):
    """An input, as a cell has it."""

    header: Header
    lane: int
    sequence: int
    attempt: int


# Half a megabyte for each worker: half a second of an actor that is as busy as can be, minutes of most.
EVENTS = 4096


class Happening(IntEnum):
    """What a row is about: an input, or the worker's process."""

    INPUT = 1
    STARTED = 2
    READY = 3
    DRAINING = 4
    STOPPING = 5


class Outcome(IntEnum):
    """What became of an input. One that is running, or died with its process, has no end either."""

    ANSWERED = 0
    FAILED = 1
    CANCELLED = 2
    EXPIRED = 3
    DEAD = 4
    REFUSED = 5


_REFUSALS: tuple[tuple[type[SlabwireError], Outcome], ...] = (
    (Cancelled, Outcome.CANCELLED),
    (DeadlineExceeded, Outcome.EXPIRED),
    (DeadLetter, Outcome.DEAD),
)


def outcome_of(error: SlabwireError) -> Outcome:
    """What an input has come to that was refused with this error."""
    return next((outcome for kind, outcome in _REFUSALS if isinstance(error, kind)), Outcome.REFUSED)


_READER = "supervisor, successor"
_WORDS = (
    Word("number", "of the event, from 1 since the graph began; 0: none yet", _READER),
    Word("begin_ns", "when it began, on CLOCK_MONOTONIC", _READER),
    Word("end_ns", "when it ended; 0 while it runs, or if its process died first", _READER),
    Word("outcome", "what became of it, as Outcome; stored before its end", _READER),
    Word("what", "actor in the worker, port, Happening, attempt: 2 bytes each", _READER),
    Word("lanes", "the lane it came by, and that of the input that caused it: 4 bytes each", _READER),
    Word("sequence", "its number in its lane", _READER),
    Word("caller", "the endpoint that waits for the answer: 4 bytes", _READER),
    Word("cause_sequence", "the number of the input that caused it, in that one's lane", _READER),
    Word("request", "the request's number at its caller; of a process, its pid", _READER),
    Word("trace", "the trace id, the upper half first", _READER, nbytes=2 * WORD_NBYTES),
    Word("sent_ns", "when its record was published; 0: not known", _READER),
    Word("spare", "nothing", _READER, nbytes=2 * WORD_NBYTES),
    Word("check", "the number again, written last: a row is whole if both are the same", _READER),
)
RECORDER = Layout("recorder", Group("events", "worker", _WORDS, rows="events", aligned=LINE_NBYTES))

# As _WORDS, in one call. In native form, which for numbers above 30 bits is twice as fast as the standard one.
_ROW = struct.Struct("@LLLLHHHHIILI4xLLLLL16xL")
_write = _ROW.pack_into
_ROW_WORDS = _ROW.size // WORD_NBYTES
_END, _OUTCOME, _CHECK = 2, 3, _ROW_WORDS - 1  # indices of words in a row
# What may change after a row is whole.
_FIXED = [index for index in range(_ROW_WORDS) if index not in (_END, _OUTCOME)]
ANSWERED, FAILED, CANCELLED, EXPIRED = (int(each) for each in list(Outcome)[:4])  # looked up at every message
_INPUT, _LAST_HAPPENING, _LAST_OUTCOME = int(Happening.INPUT), int(max(Happening)), int(max(Outcome))


@dataclass(frozen=True, slots=True)
class Event:
    """One row. `actor` is the instance's place among those of its worker, `port` the number of its input port; `lane`
    and `sequence` name the input in all of the graph, `cause_lane` (0: none) and `cause_sequence` the one that caused
    it. `end_ns` is 0 for one that runs, or died with its process. Of a process (`happening` is not INPUT) only the
    times and `pid` say anything. Times are on CLOCK_MONOTONIC.
    """

    number: int
    happening: Happening
    outcome: Outcome
    begin_ns: int
    end_ns: int
    actor: int
    port: int
    attempt: int
    lane: int
    sequence: int
    cause_lane: int
    cause_sequence: int
    reply_to: int
    request: int
    trace: str
    sent_ns: int
    pid: int


class Recorder:
    """The worker's side. One thread."""

    __slots__ = ("_bytes", "_mask", "_start", "_words", "number")

    def __init__(self, segment: Segment) -> None:
        self._bytes, self._words = segment.bytes, segment.words
        self._start = segment.placed["number"]
        self._mask = segment.placed.rows("number") - 1  # their number is a power of two
        self.number = max(self._words[self._word(row)] for row in range(self._mask + 1))

    def _word(self, number: int) -> int:
        return (self._start + (number & self._mask) * LINE_NBYTES) // WORD_NBYTES

    def record(self, actor: int, work: Handled, begin_ns: int, end_ns: int, outcome: int) -> None:
        """An input was handled, or (`end_ns` is 0) is being handled from now on. Its event has the number `number`."""
        number = self.number = self.number + 1
        header = work.header
        _write(
            self._bytes,
            self._start + (number & self._mask) * LINE_NBYTES,
            number,
            begin_ns,
            end_ns,
            outcome,
            actor,
            header.target,
            _INPUT,
            work.attempt,
            work.lane,
            header.cause_lane,
            work.sequence,
            header.reply_to,
            header.cause_sequence,
            header.request,
            header.trace_high,
            header.trace_low,
            header.sent_ns,
            number,
        )

    def end(self, number: int, now_ns: int, outcome: int = ANSWERED) -> bool:
        """An input that was being handled has ended; False, and nothing noted, if its row is a later event's by now."""
        words, at = self._words, self._word(number)
        if words[at] != number:
            return False
        words[at + _OUTCOME] = outcome
        words[at + _END] = now_ns
        return True

    def note(self, happening: Happening, now_ns: int, pid: int) -> None:
        """A turn in the life of the process."""
        number = self.number = self.number + 1
        at = self._word(number) * WORD_NBYTES
        times, nothing = (now_ns, now_ns), (0,) * 5
        _write(self._bytes, at, number, *times, ANSWERED, 0, 0, happening, 0, *nothing, pid, 0, 0, 0, number)

    def stats(self) -> dict[str, int]:
        return {"events": self.number, "rows": self._mask + 1}


def snapshot(segment: Segment, most: int) -> bytes:
    """The rows of the newest `most` events as they stand, the newest last; those being written are left out."""
    start, rows = segment.placed["number"], segment.placed.rows("number")
    # Looked at twice: a row whose numbers agree and which was the same before is none that is being written.
    before, table = _table(segment, start, rows), _table(segment, start, rows)
    numbers = table[:, 0]
    whole = (numbers > 0) & (numbers == table[:, _CHECK]) & (numbers % rows == np.arange(rows, dtype=np.uint64))
    whole &= (before[:, _FIXED] == table[:, _FIXED]).all(axis=1)
    found = table[whole]
    newest = found[np.argsort(found[:, 0])][-most:] if most > 0 else found[:0]
    return bytes(newest)


def _table(segment: Segment, start: int, rows: int) -> NDArray[np.uint64]:
    copied = bytes(segment.bytes[start : start + rows * LINE_NBYTES])
    return np.frombuffer(copied, np.uint64).reshape(rows, _ROW_WORDS)


def events_of(rows: bytes) -> list[Event]:
    """What a snapshot says; rows that no worker can have written are skipped."""
    usable = len(rows) - len(rows) % LINE_NBYTES
    return [event for row in _ROW.iter_unpack(rows[:usable]) if (event := _event(row)) is not None]


def _event(row: tuple[int, ...]) -> Event | None:
    number, begin, end, outcome, actor, port, happening, attempt, lane, cause_lane, sequence, *rest = row
    reply_to, cause_sequence, request, trace_high, trace_low, sent, check = rest
    possible = number == check and begin and not 0 < end < begin
    if not possible or not 0 < happening <= _LAST_HAPPENING or outcome > _LAST_OUTCOME:
        return None
    ends = Happening(happening), Outcome(outcome), begin, end
    trace = f"{trace_high:016x}{trace_low:016x}"
    about = (request, trace, sent, 0) if happening == _INPUT else (0, trace, 0, request)
    return Event(number, *ends, actor, port, attempt, lane, sequence, cause_lane, cause_sequence, reply_to, *about)


def read_events(segment: Segment, most: int = EVENTS) -> list[Event]:
    """The newest `most` events of a recorder, the newest last, whether its worker lives or not."""
    return events_of(snapshot(segment, most))
