"""What takes part in a bench: one way to carry a payload to another process, and a small answer back."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from ...runtime.errors import SlabwireError
from ...runtime.host.topology import Topology

Payload = NDArray[np.uint8]


class BenchError(SlabwireError):
    """A benchmark that could not be measured, or that measured nonsense."""

    code = "bench"


@dataclass(frozen=True)
class Seats:
    """The CPUs of the calling and of the echoing process."""

    caller: int
    echo: int

    @property
    def apart(self) -> bool:
        """Whether both can run at once; else nobody may spin."""
        return self.caller != self.echo

    @classmethod
    def choose(cls) -> Seats:
        """Two physical cores that share a cache where there are such: the planner takes the first for a worker too."""
        cores = Topology.read().cores
        return cls(caller=cores[min(1, len(cores) - 1)].cpus[0], echo=cores[0].cpus[0])


class Contestant(Protocol):
    """The near end of a way. `title` is for people, `name` for programs."""

    name: str
    title: str

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class PingPong(Contestant, Protocol):
    """Carries payloads there, and checksums back. `pid` is the process that answers."""

    @property
    def pid(self) -> int: ...

    def begin(self, nbytes: int, trips: int, *, spinning: bool) -> None:
        """Tells the echo what comes next; exactly so many trips follow. Nobody sleeps if `spinning`."""

    def prepare(self, payload: Payload) -> Payload:
        """What is done before the clock runs; gives what `trip` takes."""

    def trip(self, payload: Payload) -> int:
        """Carries the payload there and the checksum back."""


class Stream(Contestant, Protocol):
    """Carries numbers one way."""

    def carry(self, count: int) -> int:
        """Sends 1, 2, ... `count` as fast as it goes; the sum of what the other end got, once it got all of them."""


def checksum(payload: NDArray[Any]) -> int:
    """What every echo answers: enough to show that it saw this payload and not the one before."""
    return int(payload[0]) << 8 | int(payload[-1])
