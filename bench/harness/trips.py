"""Round trips of a ping-pong, each checked: the payload there, a checksum of it back."""

from __future__ import annotations

import os
from time import perf_counter_ns

import numpy as np

from .contestant import BenchError, PingPong, checksum

_WARM_UP_TRIPS = 10
# So that a visit moves at most this many bytes, and takes some 10 ms where each trip has to wake somebody.
_VISIT_NBYTES = 48 << 20
_LEAST_TRIPS = 10


def trips_for(nbytes: int, most: int) -> int:
    """How many trips make a visit."""
    return max(_LEAST_TRIPS, min(most, _VISIT_NBYTES // nbytes))


def visit(contestant: PingPong, nbytes: int, trips: int, *, spinning: bool) -> tuple[list[float], int]:
    """Times so many round trips, after some that warm up: microseconds each, and how many answers were checked.

    Unless `spinning`, each trip finds the answering process asleep. Raises BenchError for a wrong answer, or none.
    """
    warm_up = _WARM_UP_TRIPS + trips // 5
    with _Sleeper(contestant) as sleeper:
        contestant.begin(nbytes, warm_up + trips, spinning=spinning)
        took = _trips(contestant, nbytes, warm_up + trips, None if spinning else sleeper)
    return took[warm_up:], len(took)


def _trips(contestant: PingPong, nbytes: int, count: int, sleeper: _Sleeper | None) -> list[float]:
    payload = np.zeros(nbytes, np.uint8)
    took = []
    for number in range(count):
        payload[-1] = number >> 8 & 255
        payload[0] = number & 255
        expected = checksum(payload)
        prepared = contestant.prepare(payload)
        if sleeper is not None:
            sleeper.wait()
        began = perf_counter_ns()
        answer = contestant.trip(prepared)
        took.append((perf_counter_ns() - began) / 1e3)
        if answer != expected:
            raise BenchError(f"{contestant.title} answered {answer} to {nbytes} bytes whose checksum is {expected}")
    return took


class _Sleeper:
    """Tells when the answering process sleeps in the kernel: then a request must wake it, whatever way it comes."""

    def __init__(self, contestant: PingPong) -> None:
        self._title = contestant.title
        self._fd = os.open(f"/proc/{contestant.pid}/stat", os.O_RDONLY | os.O_CLOEXEC)

    def wait(self) -> None:
        while (state := self._state()) != b"S":
            if state in (b"", b"Z", b"X"):
                raise BenchError(f"{self._title}: the process that answers has ended")
            os.sched_yield()

    def _state(self) -> bytes:
        try:
            return os.pread(self._fd, 512, 0).rpartition(b") ")[2][:1]
        except ProcessLookupError:
            return b""

    def __enter__(self) -> _Sleeper:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)
