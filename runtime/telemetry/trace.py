"""What flight recorders hold, as a document that Perfetto and chrome://tracing open: the Trace Event Format. No I/O.

A process for each worker, in it a track for each actor, where each input that was handled is a slice. Slices that
overlap (coroutines, generators, batches) go to further tracks of the same actor, since arrows can only begin and end at
slices of tracks, not at asynchronous ones. An arrow is a message: from the slice that sent it to the one that handled
it. Clients have a process of their own, with a slice for each call.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..message.capacities import FIRST_CLIENT
from .flight_recorder import Event, Happening, Outcome

_SHORTEST_NS = 1  # a slice of no length has no inside where an arrow could begin
_LOST, _RUNNING = "lost with its process", "running"


@dataclass(frozen=True)
class Flight:
    """What one worker's recorder holds; `instances` are its actors, in the order that events name them by. `became` is
    what became of the events that had no end when it was `settled`, by their numbers.
    """

    worker: str
    instances: Sequence[str]
    events: Sequence[Event]
    became: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Slice:
    """A bar on a track: which process, whose track, when, and what is said of it."""

    process: int
    track: str
    name: str
    begin_ns: int
    end_ns: int
    arguments: dict[str, Any]


def is_about(event: Event, *, request: int | None, trace: str | None, since_ns: int) -> bool:
    """Whether an event belongs to a request, by its number or the beginning of its trace id, and is young enough."""
    if event.end_ns and event.end_ns < since_ns:
        return False
    if request is None and trace is None:
        return True
    is_input = event.happening == Happening.INPUT
    return is_input and request in (None, event.request) and event.trace.startswith(trace or "")


def chosen(flight: Flight, *, request: int | None = None, trace: str | None = None, since_ns: int = 0) -> Flight:
    """A flight with the events alone that are about a request."""
    kept = [each for each in flight.events if is_about(each, request=request, trace=trace, since_ns=since_ns)]
    return replace(flight, events=kept)


def settled(flight: Flight, now_ns: int) -> Flight:
    """A whole flight with an end for each event: those that had none run still, or died with their process."""
    starts = [each.begin_ns for each in flight.events if each.happening == Happening.STARTED]
    events, became = [], {}
    for event in flight.events:
        if not event.end_ns:
            died = next((start for start in starts if start > event.begin_ns), 0)
            became[event.number] = _LOST if died else _RUNNING
            event = replace(event, end_ns=max(died or now_ns, event.begin_ns))
        events.append(event)
    return replace(flight, events=events, became=became)


class TraceDocument:
    """Built from the flights of a graph, each of them settled. `ports` are the names of ports by their numbers."""

    def __init__(self, graph: str, flights: Sequence[Flight], ports: Sequence[str]) -> None:
        self._ports = ports
        self._flights = flights
        self._events: list[dict[str, Any]] = []
        self._tracks: dict[tuple[int, str], list[tuple[int, int]]] = {}  # number and latest end of each
        self._tids: dict[int, int] = {}
        self._placed: dict[tuple[int, int], list[tuple[Slice, int]]] = {}  # by lane and sequence
        self.slices = self.arrows = 0
        times = [_sent_ns(event) for flight in flights for event in flight.events]
        self._base_ns = min(times, default=0)
        inputs: list[Event] = []
        for process, flight in enumerate(flights, start=1):
            self._name(process, flight.worker)
            inputs += self._draw(process, flight)
        self._draw_clients(len(flights) + 1, inputs)
        self._draw_arrows(inputs)
        about = {"graph": graph, "base_monotonic_ns": self._base_ns}
        self.document: dict[str, object] = {"traceEvents": self._events, "displayTimeUnit": "ns", "otherData": about}

    # -- slices ------------------------------------------------------------------------------------------------------

    def _draw(self, process: int, flight: Flight) -> list[Event]:
        inputs = sorted(
            (each for each in flight.events if each.happening == Happening.INPUT), key=lambda each: each.begin_ns
        )
        for event in inputs:
            actor = flight.instances[event.actor] if event.actor < len(flight.instances) else f"actor {event.actor}"
            arguments = self._arguments(event, flight.became.get(event.number, ""))
            bar = Slice(process, actor, self._port(event.port), event.begin_ns, event.end_ns, arguments)
            self._placed.setdefault((event.lane, event.sequence), []).append((bar, self._put(bar)))
        for event in flight.events:
            if event.happening != Happening.INPUT:
                at = {"ts": self._micros(event.begin_ns), "pid": process, "tid": 0, "ph": "i", "s": "p"}
                name = event.happening.name.lower()
                self._events.append({**at, "name": name, "cat": "process", "args": {"pid": event.pid}})
        return inputs

    def _arguments(self, event: Event, became: str) -> dict[str, Any]:
        outcome = became or Outcome(event.outcome).name.lower()
        about = {"port": self._port(event.port), "request": str(event.request), "trace": event.trace}
        known = {"attempt": event.attempt, "outcome": outcome, "lane": event.lane, "sequence": event.sequence}
        waited = {"waited_us": max(0, event.begin_ns - event.sent_ns) / 1000} if event.sent_ns else {}
        return {**about, **known, **waited, "caller": _caller(event.reply_to, self._flights)}

    def _port(self, number: int) -> str:
        return self._ports[number] if number < len(self._ports) else f"port {number}"

    def _put(self, bar: Slice) -> int:
        """Draws a slice on the first track of its actor that is free by then; returns the track's number."""
        end_ns = max(bar.end_ns, bar.begin_ns + _SHORTEST_NS)
        tracks = self._tracks.setdefault((bar.process, bar.track), [])
        place = next((place for place, (_, end) in enumerate(tracks) if end <= bar.begin_ns), len(tracks))
        if place == len(tracks):
            tracks.append((self._new_track(bar, place), 0))
        tid = tracks[place][0]
        tracks[place] = tid, end_ns
        self._events.append(
            {
                "name": bar.name,
                "cat": "handler",
                "ph": "X",
                "pid": bar.process,
                "tid": tid,
                "ts": self._micros(bar.begin_ns),
                "dur": (end_ns - bar.begin_ns) / 1000,
                "args": bar.arguments,
            }
        )
        self.slices += 1
        return tid

    def _new_track(self, bar: Slice, place: int) -> int:
        tid = self._tids[bar.process] = self._tids.get(bar.process, 0) + 1
        name = bar.track if place == 0 else f"{bar.track} ({place + 1})"
        self._events.append(_named("thread_name", bar.process, tid, name))
        return tid

    def _name(self, process: int, name: str) -> None:
        self._events.append(_named("process_name", process, 0, name))
        order = {"name": "process_sort_index", "ph": "M", "pid": process, "tid": 0, "args": {"sort_index": process}}
        self._events += [order, _named("thread_name", process, 0, "process")]

    # -- calls and arrows --------------------------------------------------------------------------------------------

    def _draw_clients(self, process: int, inputs: Iterable[Event]) -> None:
        """A slice for each call: from when it was sent to the end of the last that was done for it."""
        calls: dict[tuple[int, int], list[Event]] = {}
        for event in inputs:
            if event.reply_to >= FIRST_CLIENT:
                calls.setdefault((event.reply_to, event.request), []).append(event)
        entered = [(min(each, key=lambda event: event.begin_ns), each) for each in calls.values()]
        entered = sorted((each for each in entered if not each[0].cause_lane), key=lambda each: _sent_ns(each[0]))
        if entered:
            self._name(process, "clients")
        for first, events in entered:
            begin = _sent_ns(first)
            about = {"request": str(first.request), "trace": first.trace}
            name = f"call {self._port(first.port)}"
            bar = Slice(process, _caller(first.reply_to, ()), name, begin, max(e.end_ns for e in events), about)
            place = bar, self._put(bar)
            for event in events:
                if not event.cause_lane:
                    self._arrow(place, event)

    def _draw_arrows(self, inputs: Iterable[Event]) -> None:
        for event in inputs:
            causes = self._placed.get((event.cause_lane, event.cause_sequence), ()) if event.cause_lane else ()
            sent = _sent_ns(event)
            # An input that was handled again has several slices: the last that had begun by then sent it.
            begun = [each for each in causes if each[0].begin_ns <= sent]
            if causes:
                self._arrow(begun[-1] if begun else causes[0], event)

    def _arrow(self, cause: tuple[Slice, int], event: Event) -> None:
        source, tid = cause
        target = next(
            (each for each in self._placed[event.lane, event.sequence] if each[0].begin_ns == event.begin_ns), None
        )
        if target is None:
            return
        self.arrows += 1
        sent = max(source.begin_ns, min(_sent_ns(event), source.end_ns - _SHORTEST_NS))
        both = {"name": target[0].name, "cat": "message", "id": self.arrows}
        begin = {"ph": "s", "pid": source.process, "tid": tid, "ts": self._micros(sent)}
        end = {"ph": "f", "bp": "e", "pid": target[0].process, "tid": target[1], "ts": self._micros(target[0].begin_ns)}
        self._events += [{**both, **begin}, {**both, **end}]

    def _micros(self, at_ns: int) -> float:
        return (at_ns - self._base_ns) / 1000


def _sent_ns(event: Event) -> int:
    """When its message was sent: before it was begun, whatever a client wrote there."""
    return event.sent_ns if 0 < event.sent_ns < event.begin_ns else event.begin_ns


def _named(what: str, process: int, track: int, name: str) -> dict[str, Any]:
    return {"name": what, "ph": "M", "pid": process, "tid": track, "args": {"name": name}}


def _caller(endpoint: int, flights: Sequence[Flight]) -> str:
    """Who waits for the answer: a client, a worker whose actor calls, or nobody."""
    if endpoint >= FIRST_CLIENT:
        return f"client-{endpoint - FIRST_CLIENT}"
    return flights[endpoint - 1].worker if 0 < endpoint <= len(flights) else ""
