"""One visit to a server: started, its streams opened, so many steps measured, ended."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from ....actors.ingress.certificates.certificate import Certificate
from ...harness.contestant import BenchError
from ...harness.load import Load
from ...harness.party import Party
from ...harness.process import Clock, Memory
from .server import Pids, Server

_WARM_UP_S = 1.0
_LEAST_STEPS = 2
# After the last step: a server that is far behind may have this much to send.
_COMES_WITHIN_S = 30.0


@dataclass(frozen=True)
class Figures:
    """What a visit measured. CPU time in nanoseconds by what the processes do, as `Server.pids` has them.

    `errors`: streams that have ended, tokens that were made and never came, and what came wrong.
    """

    tokens: int
    took_ns: int
    cpu_ns: dict[str, int]
    latencies_us: list[float]
    gaps_us: list[float]
    memory_nbytes: int
    streams: int
    missed: int
    errors: int

    def cpu_us(self, *kinds: str) -> float:
        """For each token; of all processes where no kind is named."""
        return sum(self.cpu_ns[each] for each in kinds or self.cpu_ns) / self.tokens / 1e3


class ClientProcess:
    """The parent's side of the client, while a `with` lasts."""

    def __init__(self, certificate: Certificate) -> None:
        self._party = Party("ways.served_streams.client:Client", certificate=str(certificate.public))

    def ask(self, what: str, *arguments: Any) -> Any:
        return self._party.ask(what, *arguments)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._party.close(now=True)  # its streams end with it


def visit(kind: type[Server], load: Load, seconds: float, certificate: Certificate, processes: int = 1) -> Figures:
    """Measures as many steps as make so many seconds, with `processes` that accept connections."""
    with kind(load, certificate, processes) as server, ClientProcess(certificate) as client:
        pids = server.pids()  # once: an ingress's supervisor works to tell them
        memory = _memory(pids)
        client.ask("open", server.port, load.streams)
        server.steps(_steps_in(min(_WARM_UP_S, seconds), load))
        client.ask("settle")
        memory = _memory(pids) - memory
        client.ask("begin")
        before, count = _clocks(pids), _steps_in(seconds, load)
        steps = server.steps(count)
        made = count * load.streams - steps.missed
        came = client.ask("until", made, _COMES_WITHIN_S)
        after = _clocks(pids)
        if not came["tokens"]:
            raise BenchError(f"{kind.title}: no token came of {made} by {load.streams} streams")
        return Figures(
            tokens=came["tokens"],
            took_ns=max(came["came_ns"], steps.ended_ns) - steps.began_ns,
            cpu_ns={each: after[each] - before[each] for each in before},
            latencies_us=came["latencies_us"],
            gaps_us=came["gaps_us"],
            memory_nbytes=memory,
            streams=load.streams,
            missed=steps.missed,
            errors=came["broken"] + came["wrong"] + abs(made - came["tokens"]),
        )


def _steps_in(seconds: float, load: Load) -> int:
    return max(_LEAST_STEPS, math.ceil(seconds * load.pace))


def _clocks(pids: Pids) -> dict[str, int]:
    return {what: sum(Clock.of(each).ran_ns for each in some) for what, some in pids.items()}


def _memory(pids: Pids) -> int:
    """Of all processes, shared memory counted once."""
    found = [Memory.of(each) for some in pids.values() for each in some]
    return sum(each.pss - each.pss_files for each in found)
