"""A graph that runs, as all that is in its supervisor sees it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from ..control.worker_line import Order
from ..dataplane.switchboard import Switchboard
from ..errors import UnknownPort
from ..host.run_directory import RunDirectory
from ..host.topology import Topology
from ..placement.plan import Plan
from ..spec import GraphSpec
from ..spelling import did_you_mean
from .fork_server import Spawner
from .gateway_handle import GatewayHandle
from .worker_handle import WorkerHandle
from .workforce import Workforce

# Messages that were given up. The supervisor keeps them, so that they outlive the actors that died of them.
MOST_DEAD_LETTERS = 256

State = Literal["starting", "ready", "draining", "stopped"]


@dataclass
class RunningGraph:
    """Built by the supervisor, and read and changed on its loop. `tell` sends an order to a worker, by name."""

    name: str
    spec: GraphSpec
    topology: Topology
    directory: RunDirectory
    switchboard: Switchboard
    workforce: Workforce
    spawner: Spawner
    tell: Callable[[str, Order], None]
    drain_timeout_s: float
    dead_letters: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=MOST_DEAD_LETTERS))
    state: State = "starting"
    started_unix_s: float = field(default_factory=time.time)

    @property
    def workers(self) -> dict[str, WorkerHandle]:
        return self.workforce.workers

    @property
    def gateway(self) -> GatewayHandle:
        return self.workforce.gateway

    @property
    def plan(self) -> Plan:
        """Which worker runs where, as it is now."""
        return self.switchboard.plan

    def instances_of(self, actor: str) -> list[str]:
        """All instances of an actor, or the one that has this name. Raises UnknownPort where there is none."""
        routing = self.switchboard.routing
        found = routing.instances.get(actor, [actor] if actor in routing.actor_of else [])
        if not found:
            hint = did_you_mean(actor, [*routing.instances, *routing.actor_of])
            raise UnknownPort(f"graph {self.name!r} has no actor {actor!r}{hint}")
        return list(found)
