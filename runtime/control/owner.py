"""Between the owner of a graph, which runs it, and the supervisor: the order to run it, and what becomes of it."""

from __future__ import annotations

from typing import Any, NamedTuple

from .schema import Schema


class RunGraph(NamedTuple):
    """The first document to a supervisor: the graph's spec, and the settings of `graph.run`.

    `name` is another name than the graph's own, or None; `listen` is an address for remote clients, or None.
    `inherited` are the numbers of listening sockets that the supervisor was started with.
    """

    spec: dict[str, Any]
    name: str | None
    drain_timeout_s: float
    listen: str | None
    rebalance: bool
    inherited: list[int]


JOBS: Schema[RunGraph] = Schema("job", {"run": RunGraph})


class GraphReady(NamedTuple):
    """All workers are ready, and the gateway if there is one. `directory` is the run directory."""

    name: str
    directory: str


class GraphFailed(NamedTuple):
    """The graph did not start, or gave up. `detail` is a traceback, or empty; `code` that of the error, or empty."""

    error: str
    detail: str = ""
    code: str = ""


class GraphStopped(NamedTuple):
    """The end of the graph: how much was `cut_off`, by actor, and how workers have `failed` to stop, by worker."""

    cut_off: dict[str, int]
    failed: dict[str, str]


Event = GraphReady | GraphFailed | GraphStopped
EVENTS: Schema[Event] = Schema("event", {"ready": GraphReady, "failed": GraphFailed, "stopped": GraphStopped})
