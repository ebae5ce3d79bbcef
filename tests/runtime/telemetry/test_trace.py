"""Traces of pure events: which slice goes where, what had no end, which arrow leaves what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from slabwire.runtime.message.capacities import FIRST_CLIENT
from slabwire.runtime.telemetry.flight_recorder import Event, Happening, Outcome
from slabwire.runtime.telemetry.trace import Flight, TraceDocument, chosen, settled
from trace_check import check

PORTS = ("scale.image", "edges.find")
NOW_NS = 1_000_000
INPUT = Event(
    number=1,
    happening=Happening.INPUT,
    outcome=Outcome.ANSWERED,
    begin_ns=100_000,
    end_ns=200_000,
    actor=0,
    port=0,
    attempt=1,
    lane=5,
    sequence=7,
    cause_lane=0,
    cause_sequence=0,
    reply_to=FIRST_CLIENT + 2,
    request=1 << 60,
    trace="ab" * 16,
    sent_ns=90_000,
    pid=0,
)
FOLLOWING = replace(
    INPUT, number=1, begin_ns=250_000, end_ns=300_000, port=1, lane=6, sequence=0, cause_lane=5, cause_sequence=7
)


def process(happening: Happening, at_ns: int) -> Event:
    nothing: dict[str, Any] = dict.fromkeys(
        ("lane", "sequence", "cause_lane", "cause_sequence", "reply_to", "request", "attempt"), 0
    )
    return replace(INPUT, happening=happening, begin_ns=at_ns, end_ns=at_ns, sent_ns=0, pid=77, **nothing)


def drawn(*flights: Sequence[Event]) -> list[dict[str, Any]]:
    named = [settled(Flight(f"worker{place}", (f"actor{place}",), each), NOW_NS) for place, each in enumerate(flights)]
    events = TraceDocument("vision", named, PORTS).document["traceEvents"]
    assert isinstance(events, list)
    return events


def slices(events: list[dict[str, Any]], process: int) -> list[dict[str, Any]]:
    return [each for each in events if each["ph"] == "X" and each["pid"] == process]


def test_a_call_is_followed_from_its_client_through_two_actors() -> None:
    events = drawn([process(Happening.STARTED, 10_000), INPUT], [FOLLOWING])
    check(events)
    (first,), (second,), (call,) = (slices(events, number) for number in (1, 2, 3))
    assert (first["name"], second["name"], call["name"]) == ("scale.image", "edges.find", "call scale.image")
    assert (first["ts"], first["dur"]) == (90, 100)
    assert (call["ts"], call["dur"]) == (80, 210)
    assert first["args"]["caller"] == "client-2"
    assert first["args"]["waited_us"] == 10
    assert first["args"]["request"] == str(1 << 60)  # a number of JSON holds 53 bits
    arrows = [(each["ph"], each["pid"]) for each in events if each["ph"] in "sf"]
    assert sorted(arrows) == sorted([("s", 3), ("f", 1), ("s", 1), ("f", 2)])
    (started,) = [each for each in events if each["ph"] == "i"]
    assert (started["name"], started["args"]) == ("started", {"pid": 77})


def test_slices_that_overlap_take_further_tracks_and_go_back_to_the_first() -> None:
    later = [
        replace(INPUT, number=place, sequence=place, begin_ns=begin, end_ns=end, cause_lane=1)
        for place, (begin, end) in enumerate([(100, 500), (200, 300), (250, 700), (310, 320), (800, 900)])
    ]
    events = drawn(later)
    check(events)
    assert [each["tid"] for each in slices(events, 1)] == [1, 2, 3, 2, 1]
    names = [each["args"]["name"] for each in events if each["name"] == "thread_name"]
    assert names == ["process", "actor0", "actor0 (2)", "actor0 (3)"]


def test_what_has_no_end_runs_still_or_died_with_its_process() -> None:
    running = replace(INPUT, number=4, sequence=8, begin_ns=600_000, end_ns=0)
    events = drawn([replace(INPUT, end_ns=0), process(Happening.STARTED, 400_000), running])
    check(events)
    died, runs = slices(events, 1)
    assert (died["args"]["outcome"], died["dur"]) == ("lost with its process", 300)
    assert (runs["args"]["outcome"], runs["dur"]) == ("running", 400)


def test_an_output_comes_from_the_attempt_that_sent_it() -> None:
    again = replace(INPUT, number=2, attempt=2, begin_ns=500_000, end_ns=600_000)
    late = replace(FOLLOWING, sequence=1, begin_ns=650_000, end_ns=660_000, sent_ns=550_000)
    events = drawn([INPUT, again], [replace(FOLLOWING, sent_ns=150_000), late])
    check(events)
    begins = [each["ts"] for each in events if each["ph"] == "s" and each["pid"] == 1]
    assert begins == [60, 460]


def test_an_output_that_waited_for_room_leaves_from_the_end_of_its_slice() -> None:
    events = drawn([INPUT], [replace(FOLLOWING, sent_ns=240_000)])
    check(events)
    (begin,) = [each["ts"] for each in events if each["ph"] == "s" and each["pid"] == 1]
    assert begin == pytest.approx(110, abs=0.01)


def test_one_request_is_picked_out() -> None:
    other = replace(INPUT, sequence=9, request=5, trace="cd" * 16)
    flight = Flight("worker", ("actor",), [INPUT, other, process(Happening.READY, 1), FOLLOWING])
    assert chosen(flight, request=1 << 60).events == [INPUT, FOLLOWING]
    assert chosen(flight, trace="cd").events == [other]
    assert chosen(flight, trace="ef").events == []
    assert chosen(flight, since_ns=250_000).events == [FOLLOWING]


def test_what_was_refused_has_a_slice_and_unknown_numbers_break_nothing() -> None:
    odd = replace(INPUT, end_ns=INPUT.begin_ns, outcome=Outcome.EXPIRED, port=99, actor=99, reply_to=0)
    events = drawn([odd])
    check(events)
    (only,) = slices(events, 1)
    assert (only["name"], only["args"]["outcome"], only["args"]["caller"]) == ("port 99", "expired", "")
