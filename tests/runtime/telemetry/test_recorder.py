"""The flight recorder: a ring of rows that outlives its writer, whatever it was doing."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from slabwire.runtime.cell.work import Work
from slabwire.runtime.message.header import Header, Kind
from slabwire.runtime.telemetry.flight_recorder import (
    RECORDER,
    Event,
    Happening,
    Outcome,
    Recorder,
    events_of,
    read_events,
    snapshot,
)
from slabwire.shm.segment import Segment

ROWS = 8
ROW_NBYTES = 128


def segment() -> Segment:
    return Segment.create(RECORDER, "test", events=ROWS)


def work(sequence: int, **header: Any) -> Work:
    return Work(Header(Kind.DATA, target=3, **header), lane=7, sequence=sequence, attempt=2)


def test_a_row_says_what_caused_it_and_what_became_of_it() -> None:
    ring = segment()
    recorder = Recorder(ring)
    recorder.note(Happening.STARTED, 5, 4321)
    header = {"cause_lane": 4, "cause_sequence": 99, "reply_to": 1 << 16, "request": 1 << 63}
    recorder.record(1, work(11, **header, trace_high=1, trace_low=2), 10, 0, 0)
    (started, running) = read_events(ring)
    assert (started.happening, started.begin_ns, started.pid) == (Happening.STARTED, 5, 4321)
    assert (running.outcome, running.end_ns) == (Outcome.ANSWERED, 0)
    assert recorder.end(recorder.number, 30, Outcome.FAILED)
    expected = {
        "number": 2,
        "happening": Happening.INPUT,
        "outcome": Outcome.FAILED,
        "begin_ns": 10,
        "end_ns": 30,
        "actor": 1,
        "port": 3,
        "attempt": 2,
        "lane": 7,
        "sequence": 11,
        **header,
        "trace": f"{1:016x}{2:016x}",
        "sent_ns": 0,
        "pid": 0,
    }
    assert asdict(read_events(ring)[-1]) == expected
    ring.close()


def test_the_newest_come_last_and_old_rows_are_used_again() -> None:
    ring = segment()
    recorder = Recorder(ring)
    for number in range(1, 21):
        recorder.record(0, work(number), number, number, 0)
    assert [each.sequence for each in read_events(ring)] == list(range(13, 21))
    assert [each.sequence for each in read_events(ring, 3)] == [18, 19, 20]
    assert read_events(ring, 0) == []
    assert recorder.stats() == {"events": 20, "rows": ROWS}
    ring.close()


def test_what_ran_for_too_long_does_not_end_another() -> None:
    ring = segment()
    recorder = Recorder(ring)
    recorder.record(0, work(1), 1, 0, 0)
    old = recorder.number
    for number in range(2, ROWS + 2):
        recorder.record(0, work(number), number, 0, 0)
    assert not recorder.end(old, 100)
    assert not any(each.end_ns for each in read_events(ring))
    ring.close()


def test_a_successor_goes_on_behind() -> None:
    ring = segment()
    predecessor = Recorder(ring)
    for number in range(ROWS + 3):
        predecessor.record(0, work(number), 1, 0, 0)
    del predecessor  # as after kill -9: nothing is said
    Recorder(ring).note(Happening.STARTED, 50, 1)
    events = read_events(ring)
    assert [each.number for each in events] == list(range(5, ROWS + 5))
    assert events[-1].happening == Happening.STARTED
    ring.close()


@pytest.mark.parametrize("written", range(8, ROW_NBYTES, 8))
def test_a_row_that_was_being_written_is_left_out(written: int) -> None:
    """The process died in it: its front is the new event's, the rest the old one's."""
    ring, other = segment(), segment()
    recorder, donor = Recorder(ring), Recorder(other)
    for number in range(1, ROWS + 1):
        recorder.record(0, work(number), number, 0, 0)
        donor.record(0, work(number), number, 0, 0)
    donor.record(0, work(ROWS + 1), ROWS + 1, 0, 0)
    at = ring.placed["number"] + (ROWS + 1) % ROWS * ROW_NBYTES
    ring.bytes[at : at + written] = other.bytes[at : at + written]
    assert [each.sequence for each in read_events(ring)] == list(range(2, ROWS + 1))
    Recorder(ring).record(0, work(ROWS + 2), ROWS + 2, 0, 0)  # the successor takes no number twice
    assert [each.sequence for each in read_events(ring)] == [*range(3, ROWS + 1), ROWS + 2]
    ring.close()
    other.close()


def test_impossible_rows_are_skipped() -> None:
    ring = segment()
    recorder = Recorder(ring)
    for number in range(1, 5):
        recorder.record(0, work(number), 100, 0, 0)
    for word, value in (("end_ns", 7), ("outcome", 77), ("what", 9 << 32), ("begin_ns", 0)):
        number = {"end_ns": 1, "outcome": 2, "what": 3, "begin_ns": 4}[word]
        ring.words[(ring.placed[word] + number * ROW_NBYTES) // 8] = value
    assert read_events(ring) == []
    rows = snapshot(ring, ROWS)
    assert events_of(rows + b"half a row") == []
    ring.words[(ring.placed["number"] + 2 * ROW_NBYTES) // 8] = 2 + ROWS * 1000  # a number that lies in no such row
    assert read_events(ring) == []
    ring.close()


def test_an_event_is_made_of_plain_values() -> None:
    ring = segment()
    Recorder(ring).record(0, work(1), 1, 0, 0)
    (event,) = read_events(ring)
    assert isinstance(event, Event)
    assert all(isinstance(each, (int, str)) for each in asdict(event).values())
    ring.close()
