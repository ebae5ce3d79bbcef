"""What may be asked of a running graph over its control socket: status, stop, restart, and the like."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import astuple, dataclass
from typing import Any

from ..control import verbs
from ..dataplane.switchboard import Switchboard
from ..errors import ProtocolError
from ..postmortem.stopped import Stopped
from ..spec import GraphSpec
from ..telemetry.flight_recorder import EVENTS, snapshot
from .balancer import Balancer
from .lease_map import LeaseMap
from .mover import Mover
from .renewal import Renewals
from .running_graph import RunningGraph
from .running_now import running_now
from .status import durations_of, status_of


@dataclass(frozen=True)
class ControlApi:
    """Of one running graph, on its supervisor's loop. `stop` begins to end the graph, `stopped` waits for its end."""

    graph: RunningGraph
    stop: Callable[..., None]
    stopped: Callable[[], Awaitable[Stopped]]
    mover: Mover
    renewals: Renewals
    balancer: Balancer | None
    leases: LeaseMap

    async def serve(self, verb: verbs.Verb) -> dict[str, Any]:
        """The answer to one control request. Raises SlabwireError for what cannot be done."""
        graph = self.graph
        match verb:
            case verbs.Status():
                return await self._status()
            case verbs.Metrics():
                return {"status": await self._status(), "durations": durations_of(graph)}
            case verbs.Events(worker):
                return _events(graph, worker)
            case verbs.StopGraph(drain_timeout_s, wait):
                self.stop(drain_timeout_s=_seconds(drain_timeout_s))
                outcome = (await self.stopped()).to_plain() if wait else {}
                return {"stopping": graph.name, **outcome}
            case verbs.Restart():
                return await _restart(graph, self.renewals, verb)
            case verbs.Move(actor, cpus):
                return self.mover.serve(actor, cpus)
            case verbs.Leases():
                return await self.leases.read()
            case verbs.OpenGateway():
                await graph.gateway.open()
                return {"address": graph.gateway.address, "listen": graph.gateway.listen, "pid": graph.gateway.pid}
            case _:
                return _shown(graph, verb)

    async def _status(self) -> dict[str, Any]:
        return await status_of(self.graph, self.mover, self.balancer)


def _shown(
    graph: RunningGraph, verb: verbs.Hello | verbs.DeadLetters | verbs.Segments | verbs.Describe
) -> dict[str, Any]:
    """What is only looked at."""
    match verb:
        case verbs.Hello():
            local, spec = str(graph.directory.local), _for_clients(graph.spec)
            return {"graph": graph.name, "state": graph.state, "local": local, "spec": spec}
        case verbs.DeadLetters():
            return {"dead": list(graph.dead_letters)}
        case verbs.Segments():
            return {"segments": _described(graph.switchboard)}
        case verbs.Describe():
            plan, topology = graph.plan.to_plain(), graph.topology.to_plain()
            return {"spec": _for_clients(graph.spec), "plan": plan, "topology": topology}


def _seconds(value: float | None) -> float | None:
    if value is not None and not value >= 0:
        raise ProtocolError(f"drain_timeout_s is {value!r}; it must be a number of seconds")
    return value


def _events(graph: RunningGraph, name: str | None) -> dict[str, Any]:
    """The rows of one worker's flight recorder; without a name which workers there are."""
    if name is None:
        return {"workers": list(graph.workers)}
    worker = graph.workers.get(name)
    if worker is None or worker.peer.recorder is None:
        raise ProtocolError(f"graph {graph.name!r} has no worker {name!r}")
    running = [astuple(each) for each in running_now(worker.peer, graph.switchboard.lanes)]
    rows = snapshot(worker.peer.recorder, EVENTS)
    return {"instances": list(worker.peer.instances), "rows": rows, "running": running}


async def _restart(graph: RunningGraph, renewals: Renewals, wanted: verbs.Restart) -> dict[str, Any]:
    """Drains and ends the workers of an actor, or of one of its instances; their successors take over.

    With `wait` the answer comes when these are ready, or cannot start, and tells of each.
    """
    drain_timeout_s = _seconds(wanted.drain_timeout_s)
    names = list(dict.fromkeys(graph.switchboard.home_of(each).name for each in graph.instances_of(wanted.actor)))
    timeout_s = graph.drain_timeout_s if drain_timeout_s is None else drain_timeout_s
    outcomes = renewals.begin(names, timeout_s)
    if not wanted.wait:
        return {"restarted": names}
    return {"restarted": names, "workers": await asyncio.gather(*map(asyncio.shield, outcomes))}


def _for_clients(spec: GraphSpec) -> dict[str, Any]:
    """The spec without code: what clients need to know of ports and routes."""
    plain = spec.to_plain()
    for actor in plain["actors"]:
        actor["code"].update(pickled=b"", arguments=b"\x80", arguments_pickled=False)
    return plain


def _described(switchboard: Switchboard) -> list[dict[str, Any]]:
    described = []
    for purpose, layout, segment in switchboard.segments():
        rows = {each.word.name: each.rows for each in segment.placed.places}
        parameters = {
            name: next(rows[group.words[0].name] for group in layout.groups if group.rows == name)
            for name in layout.parameters
        }
        text = layout.describe(**parameters) if parameters else layout.describe()
        described.append({"purpose": purpose, "layout": layout.name, "nbytes": segment.nbytes, "map": text})
    return described
