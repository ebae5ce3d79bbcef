"""Two lanes between two processes, there and back, and one of the steps on them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from ...shm.block import METADATA_NBYTES
from ...shm.pool import Pool
from ..harness.contestant import Payload, Seats
from ..harness.echo import Echoed, EchoProcess, Order
from ..harness.wiring import Waiter, Wiring, no_slabs
from .steps import STEPS, Headed, Lending, Message, Noted, Record, Timed

_CALLS, _ANSWERS = 0, 1
_WAKING_TRIPS, _WAKING_NBYTES = 8, 1024


class LanePair(Echoed):
    """One step, between two processes."""

    name: ClassVar[str]
    title: ClassVar[str]

    def __init__(self, seats: Seats, sizes: Sequence[int]) -> None:
        self._apart = seats.apart
        self._spinning = False
        self._wiring = Wiring.create(2, [(0, 1), (1, 0)])
        out, back = self._wiring.producer(_CALLS), self._wiring.consumer(_ANSWERS)
        self.pool = self._wiring.pool(out.reap, self._blocks(sizes))
        self._step = STEPS[self.step](out, back, self.pool, self._wiring)
        self._waiter = Waiter(self._wiring.bell(0), back)
        details = {"wiring": self._wiring.plain(), "step": self.step}
        super().__init__(EchoProcess("ways.lanes:serve", seats.echo, details, self._wiring.descriptors()))

    @property
    def step(self) -> str:
        return self.name

    def _blocks(self, sizes: Sequence[int]) -> Iterable[int]:
        return sizes

    def begin(self, nbytes: int, trips: int, *, spinning: bool) -> None:
        self._spinning = self._apart and spinning
        super().begin(nbytes, trips, spinning=self._spinning)

    def trip(self, payload: Payload) -> int:
        self._step.ask(payload)
        self._waiter.wait(spinning=self._spinning)
        return self._step.take()

    def _let_go(self) -> None:
        self._wiring.close()


class RecordLane(LanePair):
    name, title = "record", Record.title


class LendingLane(LanePair):
    name, title = "bare_lane", Lending.title


class BareLane(LendingLane):
    title = "bare lane"


class HeadedLane(LanePair):
    name, title = "header", Headed.title


class TimedLane(LanePair):
    name, title = "deadline", Timed.title


class NotedLane(LanePair):
    name, title = "inflight", Noted.title


class MessageLane(LanePair):
    name, title = "message", Message.title


class Loaned(LanePair):
    """The message, with its tensor loaned and written in place before the clock runs."""

    name = "loaned"
    title = "message, loaned"

    @property
    def step(self) -> str:
        return "message"

    def _blocks(self, sizes: Sequence[int]) -> Iterable[int]:
        return (each + METADATA_NBYTES for each in (_WAKING_NBYTES, *sizes))

    def begin(self, nbytes: int, trips: int, *, spinning: bool) -> None:
        super().begin(nbytes, (1 + _WAKING_TRIPS) * trips, spinning=spinning)

    def prepare(self, payload: Payload) -> Payload:
        """Writes the tensor, then lets small ones go there and back in the same way.

        A large tensor pushes everything else out of the caches, and while it is written the echo may lose its CPU: the
        next trip would be slow whatever it carries.
        """
        loan = self._loan(payload)
        for _ in range(_WAKING_TRIPS):
            self.trip(self._loan(payload[:_WAKING_NBYTES]))
        return loan

    def _loan(self, payload: Payload) -> Payload:
        loan: Payload = self.pool.loan(payload.shape, np.uint8)
        loan[:] = payload
        return loan


def serve(orders: Iterable[Order], details: dict[str, Any]) -> None:
    """The echo."""
    wiring = Wiring.open(details["wiring"])
    calls, answers = wiring.consumer(_CALLS), wiring.producer(_ANSWERS)
    pool = Pool(no_slabs, answers.reap, limit_nbytes=1 << 40)  # type: ignore[arg-type]
    step = STEPS[details["step"]](answers, calls, pool, wiring)
    waiter = Waiter(wiring.bell(1), calls)
    for order in orders:
        for _ in range(order.trips):
            waiter.wait(spinning=order.spinning)
            step.answer()
