"""One visit to a server: started, its streams opened, so many steps measured, ended."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
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
# Of the tokens, so many have to come before the next step of their stream begins.
_IN_TIME = 0.99


@dataclass(frozen=True)
class Figures:
    """What a visit measured. CPU time in nanoseconds, and by how many bytes memory has grown, by what the processes do,
    as `Server.pids` has them.

    `errors`: streams that have ended, tokens that were made and never came, and what came wrong.
    """

    load: Load
    tokens: int
    took_ns: int
    cpu_ns: dict[str, int]
    latencies_us: list[float]
    gaps_us: list[float]
    memory_nbytes: dict[str, int]
    missed: int
    errors: int

    def cpu_us(self, *kinds: str) -> float:
        """For each token; of all processes where no kind is named."""
        return sum(self.cpu_ns[each] for each in kinds or self.cpu_ns) / self.tokens / 1e3

    @property
    def cores(self) -> float:
        """That all processes have kept busy."""
        return sum(self.cpu_ns.values()) / self.took_ns

    @property
    def step_us(self) -> float:
        """Between two steps."""
        return 1e6 / self.load.pace

    @property
    def jitter_us(self) -> list[float]:
        """By how much the time between two tokens of a stream was longer or shorter than that between their steps."""
        return [abs(each - self.step_us) for each in self.gaps_us]

    @property
    def share_in_time(self) -> float:
        """Of the tokens whose latency was measured: those that came before their stream's next step began."""
        return sum(each <= self.step_us for each in self.latencies_us) / len(self.latencies_us)

    @property
    def is_in_time(self) -> bool:
        """Whether the server keeps up: it misses and loses nothing, and nearly all come before the next step."""
        return not (self.missed or self.errors) and self.share_in_time >= _IN_TIME

    def nbytes_a_stream(self, *kinds: str) -> float:
        """Of all processes where no kind is named."""
        return sum(self.memory_nbytes[each] for each in kinds or self.memory_nbytes) / self.load.streams


class ClientProcess:
    """The parent's side of a client, while a `with` lasts."""

    def __init__(self, certificate: Certificate, work: str = "client:Client") -> None:
        self.party = Party(f"ways.served_streams.{work}", certificate=str(certificate.public))

    def ask(self, what: str, *arguments: Any) -> Any:
        return self.party.ask(what, *arguments)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.party.close(now=True)  # its streams end with it


@dataclass
class Visit:
    """A server with open streams, and their client."""

    server: Server
    client: ClientProcess
    streams: int
    pids: Pids
    idle_nbytes: dict[str, int]

    def measure(self, pace: float, seconds: float) -> Figures:
        """As many steps as make so many seconds, `pace` a second, after some that warm up. Raises BenchError."""
        load = Load(self.streams, pace)
        self.server.steps(_steps_in(min(_WARM_UP_S, seconds), pace), pace)
        self.client.ask("settle")
        grown_nbytes = self.grown_nbytes
        self.client.ask("begin")
        before, count = _clocks(self.pids), _steps_in(seconds, pace)
        steps = self.server.steps(count, pace)
        made = count * self.streams - steps.missed
        came = self.client.ask("until", made, _COMES_WITHIN_S)
        after = _clocks(self.pids)
        if not came["tokens"] or not came["latencies_us"]:
            raise BenchError(f"{self.server.title}: no token came of {made} by {self.streams} streams")
        return Figures(
            load=load,
            tokens=came["tokens"],
            took_ns=max(came["came_ns"], steps.ended_ns) - steps.began_ns,
            cpu_ns={each: after[each] - before[each] for each in before},
            latencies_us=came["latencies_us"],
            gaps_us=came["gaps_us"],
            memory_nbytes=grown_nbytes,
            missed=steps.missed,
            errors=came["broken"] + came["wrong"] + abs(made - came["tokens"]),
        )

    @cached_property
    def grown_nbytes(self) -> dict[str, int]:
        """By so much memory has grown for the streams: asked for once, after the first warm-up."""
        return {what: nbytes - self.idle_nbytes[what] for what, nbytes in _memory(self.pids).items()}


@contextmanager
def _opened(kind: type[Server], load: Load, certificate: Certificate, processes: int) -> Iterator[Visit]:
    with kind(load, certificate, processes) as server, ClientProcess(certificate) as client:
        pids = server.pids()  # once: an ingress's supervisor works to tell them
        idle_nbytes = _memory(pids)
        client.ask("open", server.port, load.streams)
        yield Visit(server, client, load.streams, pids, idle_nbytes)


def visit(kind: type[Server], load: Load, seconds: float, certificate: Certificate, processes: int = 1) -> Figures:
    """Measures as many steps as make so many seconds, with `processes` that accept connections."""
    with _opened(kind, load, certificate, processes) as visited:
        return visited.measure(load.pace, seconds)


def visit_rates(
    kind: type[Server], loads: Sequence[Load], seconds: float, certificate: Certificate, processes: int
) -> list[Figures]:
    """One load after the other on the same streams, up to the first that the server does not keep up with."""
    found: list[Figures] = []
    with _opened(kind, loads[0], certificate, processes) as visited:
        for load in loads:
            found.append(visited.measure(load.pace, seconds))
            if not found[-1].is_in_time:
                break
    return found


def visit_first_tokens(
    kind: type[Server], load: Load, a_second: float, seconds: float, certificate: Certificate, processes: int
) -> list[float]:
    """While the streams run, so many requests a second come by other connections: the time to the first token of each,
    in microseconds.
    """
    with (
        _opened(kind, load, certificate, processes) as visited,
        ClientProcess(certificate, "first_tokens:FirstTokens") as asking,
    ):
        asking.ask("open", visited.server.port, load.streams)
        visited.server.steps(_steps_in(min(_WARM_UP_S, seconds), load.pace))
        asked = asking.party.begin("ask", a_second, seconds)
        visited.server.steps(_steps_in(seconds, load.pace))
        found: list[float] = asked()
        return found


def _steps_in(seconds: float, pace: float) -> int:
    return max(_LEAST_STEPS, math.ceil(seconds * pace))


def _clocks(pids: Pids) -> dict[str, int]:
    return {what: sum(Clock.of(each).ran_ns for each in some) for what, some in pids.items()}


def _memory(pids: Pids) -> dict[str, int]:
    """By what the processes do; shared memory is counted once, by shares."""
    found = {what: [Memory.of(each) for each in some] for what, some in pids.items()}
    return {what: sum(each.pss - each.pss_files for each in some) for what, some in found.items()}
