"""The metrics of a graph: what its status says, as Prometheus' families. No I/O.

Counters go on when a worker is replaced, since they lie in memory that outlives it, or are added up by the supervisor.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .exposition import Family, Labels, text_of
from .stats import bucket_end_ns

# Upper bounds of the histogram: every fourth of a doubling's four buckets ends at a power of two, of which each second
# is told: from 1 µs to 69 s.
_BOUNDS_NS = tuple(1 << exponent for exponent in range(10, 37, 2))

# Key in the status, name, kind, meaning; of an actor, an edge, a worker.
Row = tuple[str, str, str]
_ACTOR: tuple[Row, ...] = (
    ("failed", "failed_total", "Runs of handlers that raised."),
    ("sent", "sent_total", "Messages sent, answers included."),
    ("dropped", "dropped_total", "Messages that went no further, for a full edge."),
    ("expired", "expired_total", "Inputs whose deadline passed before they were handled, or during a stream."),
    ("cancelled", "cancelled_total", "Inputs that were dropped or ended since their calls were cancelled."),
    ("redelivered", "redelivered_total", "Inputs handled again after a worker's end."),
    ("dead", "dead_letters_total", "Inputs given up, since workers died of them."),
    ("refused", "refused_total", "Records that no correct sender can have written."),
    ("begun", "begun_total", "Messages and calls that its own tasks began, for no input."),
    ("starved", "starved_total", "Turns for which it had to wait too long behind others of its worker."),
    ("waiting", "waiting", "Messages in its lanes."),
    ("in_flight", "in_flight", "Inputs of generators, coroutines and batches that have begun."),
    ("places", "places", "Inputs that it takes at a time."),
    ("outbox", "outbox", "Messages of it that wait for room, and are in no lane yet."),
    ("oldest_s", "oldest_waiting_seconds", "Age of the oldest message in its lanes."),
    ("busy_s", "busy_seconds_total", "Time in which its handlers and its tasks ran."),
    ("busy_for_s", "running_seconds", "For how long the handler has run that runs now."),
    ("leases", "leases", "Blocks of others that it keeps."),
)
_EDGE: tuple[Row, ...] = (
    ("sent", "messages_total", "Messages that entered the edge."),
    ("waiting", "waiting", "Messages in its lanes."),
    ("oldest_s", "oldest_waiting_seconds", "Age of the oldest message in its lanes."),
    ("high_water", "waiting_most", "The most messages that ever waited in one lane."),
    ("full", "full_lanes", "Lanes without room."),
    ("paused", "paused_lanes", "Lanes whose reader is not ready."),
    ("blocked", "blocked_total", "Messages that had to wait for room, and have left."),
    ("blocked_s", "blocked_seconds_total", "Time that messages waited for room, those that do now included."),
    ("blocked_for_s", "blocked_now_seconds", "For how long the message has waited that waits now."),
    ("expired", "expired_total", "Messages whose deadline passed before there was room."),
    ("refused", "refused_total", "Records that no correct sender can have written."),
)
_OUTCOMES = (("rejected", "rejected"), ("dropped_newest", "drop_newest"), ("dropped_oldest", "drop_oldest"))
_WORKER: tuple[Row, ...] = (
    ("restarts", "restarts_total", "Times it was started again."),
    ("moves", "moves_total", "Times it was moved to other cores."),
    ("cpu_s", "cpu_seconds_total", "User and system time."),
    ("pss_bytes", "memory_bytes", "Memory of the process, what it shares counted in parts (PSS)."),
    ("slab_bytes", "slab_bytes", "Memory of its slabs."),
    ("slab_used_bytes", "slab_used_bytes", "Of it, in blocks that are in use."),
    ("blocks_out", "blocks_out", "Blocks of its slabs that are in use."),
    ("leases", "leases", "Blocks of others that it keeps, answers to its own calls included."),
    ("calls", "calls", "Calls and streams of its actors that are in flight."),
    ("most_calls", "calls_most", "How many of them it may have."),
    ("spins", "spins_total", "Waits that ended while polling."),
    ("parks", "parks_total", "Times it went to sleep."),
    ("wakes", "wakes_total", "Sleeps that a peer ended."),
    ("contended", "contended_total", "Times it did not poll, since others wanted its core."),
    ("collections", "collections_total", "Runs of Python's garbage collector."),
    ("collecting_s", "collecting_seconds_total", "Time in which it ran, and nothing else of the worker."),
    ("longest_collection_s", "longest_collection_seconds", "Its longest run since the process was ready."),
)


def metrics_text(answer: Mapping[str, Any]) -> str:
    """What a supervisor says when it is asked for `metrics`, in Prometheus' text format."""
    return text_of(families_of(answer["status"], answer["durations"]))


def families_of(status: Mapping[str, Any], durations: Mapping[str, Sequence[int]]) -> list[Family]:
    """`status` as `slabwire top --format json` shows it; `durations` of runs by actor, as CellStats has them."""
    graph = {"graph": str(status["graph"])}
    workers: Sequence[Mapping[str, Any]] = status["workers"]
    actors = [
        ({**graph, "actor": actor["name"], "worker": worker["name"]}, actor)
        for worker in workers
        for actor in worker["actors"]
    ]
    edges = [({**graph, "source": edge["source"], "target": edge["target"]}, edge) for edge in status["edges"]]
    processes = [({**graph, "worker": worker["name"]}, worker) for worker in workers]
    return [
        *_graph(status, graph),
        _handled(actors, durations),
        *_table("actor", _ACTOR, actors),
        *_table("edge", _EDGE, edges),
        _turned_away(edges),
        *_table("worker", _WORKER, processes),
        _family(
            "worker_ready",
            "1 while its actors have started and take messages.",
            [(labels, float(worker["state"] == "ready")) for labels, worker in processes],
        ),
    ]


def _graph(status: Mapping[str, Any], graph: Labels) -> list[Family]:
    supervisor, gateway = status["supervisor"], status["gateway"]
    is_up = gateway is not None and gateway["state"] == "ready"
    restarts, turned_out = (0, 0) if gateway is None else (gateway["restarts"], gateway.get("turned_out", 0))
    rows: list[tuple[str, str, float]] = [
        ("ready", "1 while the graph is ready.", float(status["state"] == "ready")),
        ("start_time_seconds", "When it was started, in Unix time.", status["started_unix_s"]),
        ("clients", "Clients on this host.", status["clients"]),
        ("shared_memory_bytes", "All shared memory of the graph.", status["memory_bytes"]),
        ("supervisor_memory_bytes", "Memory of the supervisor (PSS).", supervisor["pss_bytes"]),
        ("supervisor_cpu_seconds_total", "User and system time of it.", supervisor["cpu_s"]),
        ("gateway_up", "1 while the gateway takes remote clients.", float(is_up)),
        ("gateway_restarts_total", "Times it was started again.", restarts),
        ("gateway_turned_out_total", "Remote clients for whom too much waited.", turned_out),
    ]
    return [_family(name, meaning, [(graph, value)]) for name, meaning, value in rows]


Lines = Sequence[tuple[Labels, Mapping[str, Any]]]


def _table(thing: str, rows: Iterable[Row], lines: Lines) -> list[Family]:
    return [
        _family(f"{thing}_{name}", meaning, [(labels, values[key]) for labels, values in lines])
        for key, name, meaning in rows
    ]


def _turned_away(edges: Lines) -> Family:
    return _family(
        "edge_turned_away_total",
        "Messages that found no room, by what became of them.",
        [({**labels, "outcome": outcome}, values[key]) for labels, values in edges for key, outcome in _OUTCOMES],
    )


def _family(name: str, meaning: str, samples: Iterable[tuple[Labels, float]]) -> Family:
    """A counter where the name ends in `_total`, else a gauge."""
    kind: Any = "counter" if name.endswith("_total") else "gauge"
    return Family(f"slabwire_{name}", kind, meaning, [("", labels, value) for labels, value in samples])


def _handled(actors: Lines, durations: Mapping[str, Sequence[int]]) -> Family:
    family = Family("slabwire_actor_handler_seconds", "histogram", "Runs of handlers, coroutines with their waiting.")
    for labels, values in actors:
        counts = cumulative(durations.get(str(values["name"]), ()))
        family.add_histogram(counts, values["busy_s"] + values["awaited_s"], labels)
    return family


def cumulative(buckets: Sequence[int]) -> dict[float, int]:
    """How many runs took less than each of some durations, in seconds."""
    ends = [bucket_end_ns(index) for index in range(len(buckets))]
    counts: dict[float, int] = {
        bound / 1e9: sum(count for count, end in zip(buckets, ends, strict=True) if end <= bound)
        for bound in _BOUNDS_NS
    }
    return {**counts, math.inf: sum(buckets)}
