"""One look at a running graph, and what has changed since the look before. No I/O; time is in the sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .presentation import bytes_text, count_text, duration_text

EDGE_HEADS = (
    "edge",
    "when full",
    ">sent",
    ">waiting",
    ">oldest",
    ">most",
    ">capacity",
    ">blocked",
    ">for",
    ">rejected",
    ">dropped",
    ">expired",
    ">refused",
)
# What shows that an edge was too small, too slow, wrongly used, or has no reader now.
_TELLING = ("full", "paused", "blocked", "rejected", "dropped_newest", "dropped_oldest", "expired", "refused")


@dataclass(frozen=True)
class Sample:
    """A status and when it was taken (Unix seconds); without `previous` rates are those since the start. `ingresses`
    is what these say of themselves.
    """

    status: dict[str, Any]
    taken_unix_s: float
    previous: Sample | None = None
    ingresses: Sequence[dict[str, Any]] = ()

    @property
    def elapsed_s(self) -> float:
        began = self.previous.taken_unix_s if self.previous else self.status["started_unix_s"]
        return max(1e-3, self.taken_unix_s - began)

    def change(self, actor: str, key: str) -> float:
        """By how much a counter of an actor has grown. It goes on when a worker is replaced; another graph of the
        same name, started meanwhile, begins at 0 again.
        """
        now = self._actors()[actor][key]
        before = self.previous._actors().get(actor, {}).get(key, 0) if self.previous else 0
        return float(now - before if now >= before else now)

    def rate(self, actor: str) -> float:
        """Runs of its handlers, and messages and calls of its own tasks, in a second."""
        return (self.change(actor, "handled") + self.change(actor, "begun")) / self.elapsed_s

    def busy(self, actor: str) -> float:
        """The part of the time in which the actor was at work, from 0 to 1."""
        return min(1.0, self.change(actor, "busy_s") / self.elapsed_s)

    def cpu(self, worker: dict[str, Any] | None) -> float:
        """Cores' worth of CPU time that a worker (None: the supervisor) used."""
        now = (worker or self.status["supervisor"])["cpu_s"]
        before = 0.0
        if self.previous:
            old = self.previous.status
            same = [each for each in old["workers"] if worker and each["name"] == worker["name"]]
            before = old["supervisor"]["cpu_s"] if worker is None else sum(each["cpu_s"] for each in same)
        return float(now - before if now >= before else now) / self.elapsed_s

    def _actors(self) -> dict[str, dict[str, Any]]:
        return {actor["name"]: actor for worker in self.status["workers"] for actor in worker["actors"]}

    def to_plain(self) -> dict[str, Any]:
        """The status, with `rate_per_s` and `busy` in each actor, `cpu` in each process, and `ingresses`."""
        workers = []
        for worker in self.status["workers"]:
            actors = [
                {**actor, "rate_per_s": round(self.rate(actor["name"]), 3), "busy": round(self.busy(actor["name"]), 4)}
                for actor in worker["actors"]
            ]
            workers.append({**worker, "actors": actors, "cpu": round(self.cpu(worker), 4)})
        supervisor = {**self.status["supervisor"], "cpu": round(self.cpu(None), 4)}
        more = {"taken_unix_s": self.taken_unix_s, "ingresses": list(self.ingresses)}
        return {**self.status, "workers": workers, "supervisor": supervisor, **more}


def headline(sample: Sample) -> str:
    """The line above the table."""
    status = sample.status
    parts = [
        f"{status['graph']} is {status['state']}",
        f"up {duration_text(max(0.0, sample.taken_unix_s - status['started_unix_s']))}",
        f"{status['clients']} client{'' if status['clients'] == 1 else 's'}",
        f"{bytes_text(status['memory_bytes'])} shared",
    ]
    parts += [f"waits for {each['actor']}: {each['reason']}" for each in status.get("not_ready", [])]
    return ", ".join(parts)


def edge_rows(sample: Sample, *, every: bool) -> list[tuple[str, ...]]:
    """A row for each edge; without `every` only for those that have something to tell: see `_TELLING`."""
    edges = sample.status["edges"]
    return [_edge_row(edge) for edge in edges if every or any(edge[name] for name in _TELLING)]


def _edge_row(edge: dict[str, Any]) -> tuple[str, ...]:
    lanes = f" in {edge['lanes']} lanes" if edge["lanes"] > 1 else ""
    paused = f", {edge['paused']} paused" if lanes else ", paused"
    return (
        f"{edge['source']} -> {edge['target']}{lanes}{paused if edge['paused'] else ''}",
        edge["when_full"],
        *(count_text(edge[name]) for name in ("sent", "waiting")),
        duration_text(edge["oldest_s"]),
        *(count_text(edge[name]) for name in ("high_water", "capacity", "blocked")),
        duration_text(edge["blocked_s"]),
        count_text(edge["rejected"]),
        count_text(edge["dropped_newest"] + edge["dropped_oldest"]),
        *(count_text(edge[name]) for name in ("expired", "refused")),
    )
