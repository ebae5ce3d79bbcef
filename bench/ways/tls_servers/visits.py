"""What is measured at a server, by the kernel's count of the CPU time of all of its processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from ...harness.medians import percentile
from ...harness.party import Party
from ...harness.process import Clock, Memory
from .answer import LARGE_NBYTES
from .echo_servers import EngineEcho
from .server import Server

# Figures of a visit by name, and what is compared, in µs.
Figures = dict[str, float]
_KEEP_ALIVE_CONNECTIONS = 32


@dataclass(frozen=True)
class Amounts:
    """How much each visit measures."""

    handshakes: int = 60
    seconds: float = 1.0
    idle: int = 500
    pushes: int = 4000
    pushed_to: int = 200  # so many, that what they are sent has room in their sockets


QUICK = Amounts(handshakes=5, seconds=0.1, idle=50, pushes=400, pushed_to=20)


@dataclass
class Visits:
    """To one server, by one client, the parent's side. `far_port`: the server behind a network, if there is one."""

    server: Server
    client: Party
    amounts: Amounts
    far_port: int = 0
    pids: Sequence[int] = field(init=False)

    def __post_init__(self) -> None:
        self.pids = self.server.all_pids()  # once: an ingress's supervisor works to tell them

    def handshakes(self, *, resumes: bool) -> tuple[float, Figures]:
        """µs of CPU time for a connection with one small request."""
        count = self.amounts.handshakes
        self.client.ask("connections", self.server.port, 2, resumes)  # what the first ones load and make
        before = self._ran_ns()
        made = self.client.ask("connections", self.server.port, count, resumes)
        cost_us = (self._ran_ns() - before) / (count + resumes) / 1e3
        return cost_us, {"cpu_us": cost_us, **_times(made), "resumed": made["resumed"] / count}

    def far_handshakes(self, *, resumes: bool) -> tuple[float, Figures]:
        """µs to the first byte of the answer, over a network."""
        count = max(2, self.amounts.handshakes // 4)
        made = self.client.ask("connections", self.far_port, count, resumes)
        figures = {**_times(made), "resumed": made["resumed"] / count}
        return figures["first_byte_p50_us"], figures

    def requests(self) -> tuple[float, Figures]:
        """µs of CPU time for a request on a connection that stays."""
        self.client.ask("requests", self.server.port, self.amounts.seconds / 10, _KEEP_ALIVE_CONNECTIONS)
        before = self._ran_ns()
        made = self.client.ask("requests", self.server.port, self.amounts.seconds, _KEEP_ALIVE_CONNECTIONS)
        cost_us = (self._ran_ns() - before) / made["requests"] / 1e3
        return cost_us, {"cpu_us": cost_us, "requests_a_second": made["requests"] / made["took_s"]}

    def download(self) -> tuple[float, Figures]:
        """µs for a MiB of a large answer."""
        before = self._ran_ns()
        took_s = self.client.ask("download", self.server.port)
        mib = LARGE_NBYTES / (1 << 20)
        cpu_us = (self._ran_ns() - before) / mib / 1e3
        return took_s * 1e6 / mib, {"cpu_us": cpu_us, "megabytes_a_second": LARGE_NBYTES / took_s / 1e6}

    def pushes(self) -> tuple[float, Figures]:
        """µs of CPU time for a small piece that goes to one of many connections."""
        count = self.amounts.pushes
        server = cast(EngineEcho, self.server)
        self.client.ask("idle", server.port, self.amounts.pushed_to)
        server.push(self.amounts.pushed_to)
        before = self._ran_ns()
        server.push(count)
        cost_us = (self._ran_ns() - before) / count / 1e3
        self.client.ask("leave")
        return cost_us, {"cpu_us": cost_us}

    def idle_nbytes(self) -> float:
        """Bytes of memory that a connection takes which nobody uses; shared memory counted once. Of a new server: an
        older one has memory left of connections that are gone.
        """
        count = self.amounts.idle
        self.client.ask("idle", self.server.port, 2)  # what the first ones load and make
        self.client.ask("leave")
        before = self._memory()
        self.client.ask("idle", self.server.port, count)
        after = self._memory()
        self.client.ask("leave")
        return (after - before) / count

    def resumed(self, count: int) -> float:
        """The share of so many connections that were resumed, each with the ticket of the one before."""
        made: dict[str, Any] = self.client.ask("connections", self.server.port, count, True)
        return float(made["resumed"]) / count

    def _ran_ns(self) -> int:
        return sum(Clock.of(each).ran_ns for each in self.pids)

    def _memory(self) -> int:
        found = [Memory.of(each) for each in self.pids]
        return sum(each.pss - each.pss_files for each in found)


def _times(made: dict[str, Any]) -> Figures:
    took = made["took_us"]
    return {"first_byte_p50_us": percentile(took, 0.5) or 0.0, "first_byte_p90_us": percentile(took, 0.9) or 0.0}
