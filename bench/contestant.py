"""What takes part in a ping-pong: one way to carry a payload to another process, and a small answer back."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from ..runtime.errors import SlabwireError
from ..runtime.topology import Topology

Payload = NDArray[np.uint8]


class BenchError(SlabwireError):
    """A benchmark that could not be measured, or that measured nonsense."""

    code = "bench"


class Mode(StrEnum):
    """What the echoing process does when a request leaves."""

    HOT = "hot"  # it has just answered the one before, and may still be looking for more
    PARKED = "parked"  # it sleeps in the kernel


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
    """The calling side. `pid` is the process that answers."""

    name: str
    title: str
    modes: tuple[Mode, ...]

    @property
    def pid(self) -> int: ...

    def begin(self, mode: Mode, nbytes: int, trips: int) -> None:
        """Tells the echo what comes next; exactly so many trips follow."""

    def trip(self, payload: Payload) -> int:
        """Carries the payload there and the checksum back."""

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, *others: Any) -> None: ...


def checksum(payload: NDArray[Any]) -> int:
    """What every echo answers: enough to show that it saw this payload and not the one before."""
    return int(payload[0]) << 8 | int(payload[-1])
