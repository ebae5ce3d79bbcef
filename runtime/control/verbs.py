"""What may be asked of a running graph over its control socket. An answer is a document."""

from __future__ import annotations

from typing import NamedTuple

from .schema import Schema


class Hello(NamedTuple):
    """What a client needs to know: `graph`, `state`, `local`, and `spec` without code."""


class Status(NamedTuple):
    """The document that `slabwire ps` and `top` show."""


class Metrics(NamedTuple):
    """`status`, and `durations` of handlers."""


class Events(NamedTuple):
    """The flight recorder of a worker: `instances`, `rows`, `running`. Without a name: which `workers` there are."""

    worker: str | None = None


class StopGraph(NamedTuple):
    """Drain and stop. With `wait` the answer comes at the end: `stopping`, and what was `cut_off` and has `failed`."""

    drain_timeout_s: float | None = None
    wait: bool = False


class Restart(NamedTuple):
    """Replace the workers of an actor, one after the other, or of one of its instances. With `wait` the answer tells of
    each successor.
    """

    actor: str
    drain_timeout_s: float | None = None
    wait: bool = False


class Move(NamedTuple):
    """Pin the worker of an actor to other CPUs: a list as `taskset -c` takes it."""

    actor: str
    cpus: str


class Leases(NamedTuple):
    """Whose memory is out, and who has it: `debug`, `silent`, `pools`, `blocks`."""


class DeadLetters(NamedTuple):
    """The messages that were given up: `dead`."""


class Segments(NamedTuple):
    """All `segments` of the graph, with each word of their layouts."""


class Describe(NamedTuple):
    """`spec` without code, `plan`, `topology`."""


class OpenGateway(NamedTuple):
    """Start the gateway if there is none: `address`, `listen`, `pid`."""


Verb = (
    Hello
    | Status
    | Metrics
    | Events
    | StopGraph
    | Restart
    | Move
    | Leases
    | DeadLetters
    | Segments
    | Describe
    | OpenGateway
)
VERBS: Schema[Verb] = Schema(
    "verb",
    {
        "hello": Hello,
        "status": Status,
        "metrics": Metrics,
        "events": Events,
        "stop": StopGraph,
        "restart": Restart,
        "move": Move,
        "leases": Leases,
        "dead": DeadLetters,
        "layout": Segments,
        "describe": Describe,
        "gateway": OpenGateway,
    },
)
