"""What may be asked of a running graph over its control socket: status, stop, restart, and the like."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import astuple
from typing import TYPE_CHECKING, Any

from ..dataplane.switchboard import Switchboard
from ..errors import ProtocolError, UnknownPort
from ..spec import GraphSpec
from ..spelling import did_you_mean
from ..telemetry.flight_recorder import EVENTS, snapshot
from .lease_map import memory_map
from .running_now import at_work
from .status import durations_of, status_of

if TYPE_CHECKING:
    from .supervisor import Supervisor


async def serve(supervisor: Supervisor, request: dict[str, Any]) -> dict[str, Any]:
    """The answer to one control request. Raises SlabwireError for what cannot be done."""
    verb = request.get("verb")
    if verb in _SHOWN:
        return _SHOWN[verb](supervisor)
    if verb == "status":
        return await status_of(supervisor)
    if verb == "metrics":
        return {"status": await status_of(supervisor), "durations": durations_of(supervisor)}
    if verb == "events":
        return _events(supervisor, request.get("worker"))
    if verb == "stop":
        supervisor.stop(drain_timeout_s=_seconds(request.get("drain_timeout_s")))
        outcome = (await supervisor.stopped()).to_plain() if request.get("wait") else {}
        return {"stopping": supervisor.name, **outcome}
    if verb == "restart":
        return await _restart(supervisor, request)
    if verb == "move":
        return supervisor.mover.serve(str(request.get("actor")), str(request.get("cpus")))
    if verb == "leases":
        return await memory_map(supervisor)
    if verb == "gateway":
        doorkeeper = supervisor.doorkeeper
        await doorkeeper.open()
        return {"address": doorkeeper.address, "listen": doorkeeper.listen, "pid": doorkeeper.pid}
    raise ProtocolError(f"nobody here knows the verb {verb!r}")


def _seconds(value: Any) -> float | None:
    if value is not None and (not isinstance(value, (int, float)) or value < 0):
        raise ProtocolError(f"drain_timeout_s is {value!r}; it must be a number of seconds")
    return value


def _hello(supervisor: Supervisor) -> dict[str, Any]:
    spec = _for_clients(supervisor.spec)
    local = str(supervisor.directory.local)
    return {"graph": supervisor.name, "state": supervisor.state, "local": local, "spec": spec}


def _dead(supervisor: Supervisor) -> dict[str, Any]:
    return {"dead": supervisor.dead_letters.listed()}


def _layout(supervisor: Supervisor) -> dict[str, Any]:
    return {"segments": _described(supervisor.switchboard)}


def _describe(supervisor: Supervisor) -> dict[str, Any]:
    plan, topology = supervisor.plan.to_plain(), supervisor.topology.to_plain()
    return {"spec": _for_clients(supervisor.spec), "plan": plan, "topology": topology}


def _events(supervisor: Supervisor, name: object) -> dict[str, Any]:
    """The rows of one worker's flight recorder; without a name which workers there are."""
    if name is None:
        return {"workers": list(supervisor.workers)}
    worker = supervisor.workers.get(str(name))
    if worker is None or worker.party.recorder is None:
        raise ProtocolError(f"graph {supervisor.name!r} has no worker {name!r}")
    running = [astuple(each) for each in at_work(worker.party, supervisor.switchboard.lines)]
    rows = snapshot(worker.party.recorder, EVENTS)
    return {"instances": list(worker.party.instances), "rows": rows, "running": running}


async def _restart(supervisor: Supervisor, request: dict[str, Any]) -> dict[str, Any]:
    """Drains and ends the workers of an actor, or of one of its instances; their successors take over.

    With `wait` the answer comes when these are ready, or cannot start, and tells of each.
    """
    actor, drain_timeout_s = str(request.get("actor")), _seconds(request.get("drain_timeout_s"))
    routing = supervisor.switchboard.routing
    instances = routing.instances.get(actor, [actor] if actor in routing.actor_of else [])
    if not instances:
        hint = did_you_mean(actor, [*routing.instances, *routing.actor_of])
        raise UnknownPort(f"graph {supervisor.name!r} has no actor {actor!r}{hint}")
    names = list(dict.fromkeys(supervisor.switchboard.home_of(each).name for each in instances))
    timeout_s = supervisor.drain_timeout_s if drain_timeout_s is None else drain_timeout_s
    outcomes = supervisor.renewals.begin(names, timeout_s)
    if not request.get("wait"):
        return {"restarted": names}
    return {"restarted": names, "workers": await asyncio.gather(*map(asyncio.shield, outcomes))}


def _for_clients(spec: GraphSpec) -> dict[str, Any]:
    """The spec without code: what clients need to know of ports and routes."""
    plain = spec.to_plain()
    for actor in plain["actors"]:
        actor["code"].update(pickled=b"", arguments=b"\x80", arguments_dilled=False)
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


# What is only looked at.
_SHOWN: Mapping[object, Callable[[Supervisor], dict[str, Any]]] = {
    "hello": _hello,
    "dead": _dead,
    "layout": _layout,
    "describe": _describe,
}
