"""A graph that runs, as all that is in its supervisor sees it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from ..control.worker_line import Order
from ..dataplane.switchboard import Switchboard
from ..host.run_directory import RunDirectory
from ..host.topology import Topology
from ..placement.plan import Plan
from ..spec import GraphSpec
from .dead_letters import DeadLetters
from .gateway_handle import GatewayHandle
from .spawner import Spawner
from .worker_handle import WorkerHandle
from .worker_queries import WorkerQueries
from .workforce import Workforce

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
    queries: WorkerQueries
    drain_timeout_s: float
    dead_letters: DeadLetters = field(default_factory=DeadLetters)
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
