"""Numbers one way: through a bare lane, and from an actor along an edge to another actor's plain handler."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from typing import Any

from ...runtime.actor.actor import Actor, Output
from ...runtime.launch.graph import Graph
from ...shm.consumer import Consumer
from ...shm.producer import Producer
from ..harness.contestant import Seats
from ..harness.echo import Echoed, EchoProcess, Order
from ..harness.wiring import Waiter, Wiring
from .graph import Graphed

_NUMBERS, _SUMS = 0, 1
_NUMBER = struct.Struct("<Q")
# What one call of the source emits: so much that the call itself does not count, and less than the edge holds.
_BURST = 1024
_CAPACITY = 2048


def produce(lane: Producer, count: int, *, spinning: bool) -> None:
    """Publishes 1, 2, ... `count`, each as a record of its own."""
    pack, slot, publish, free_records = _NUMBER.pack_into, lane.slot, lane.publish, lane.free_records
    buffer = lane.segment.bytes
    number = 0
    while number < count:
        free = free_records()
        if not free and not spinning:
            os.sched_yield()
        for number in range(number + 1, min(number + free, count) + 1):  # noqa: B020 - it goes on where it was
            pack(buffer, slot(), number)
            publish()


def consume(lane: Consumer, count: int, *, spinning: bool) -> int:
    """The sum of the next `count` numbers."""
    unpack, offset, commit, available = _NUMBER.unpack_from, lane.offset, lane.commit, lane.available
    buffer = lane.segment.bytes
    total = 0
    while count:
        ready = min(available(), count)
        if not ready and not spinning:
            os.sched_yield()
        for _ in range(ready):
            total += unpack(buffer, offset())[0]
            commit()
        count -= ready
    return total


class LaneStream(Echoed):
    name = "bare_lane"
    title = "bare lane"

    def __init__(self, seats: Seats) -> None:
        self._apart = seats.apart
        self._wiring = Wiring.create(2, [(0, 1), (1, 0)], capacity=1024)
        self._numbers, sums = self._wiring.producer(_NUMBERS), self._wiring.consumer(_SUMS)
        self._sums = sums
        self._waiter = Waiter(self._wiring.bell(0), sums)
        details = {"wiring": self._wiring.plain()}
        super().__init__(EchoProcess("ways.streams:serve", seats.echo, details, self._wiring.descriptors()))

    def carry(self, count: int) -> int:
        self._echo.order(_NUMBER.size, count, spinning=self._apart)
        produce(self._numbers, count, spinning=self._apart)
        self._waiter.wait(spinning=self._apart)
        return consume(self._sums, 1, spinning=self._apart)

    def _let_go(self) -> None:
        self._wiring.close()


def serve(orders: Iterable[Order], details: dict[str, Any]) -> None:
    """Adds the numbers up."""
    wiring = Wiring.open(details["wiring"])
    numbers, sums = wiring.consumer(_NUMBERS), wiring.producer(_SUMS)
    for order in orders:
        total = consume(numbers, order.trips, spinning=order.spinning)
        sums.free_records()
        _NUMBER.pack_into(sums.segment.bytes, sums.slot(), total)
        sums.publish()


class Source(Actor):
    """Emits numbers when told to."""

    numbers = Output(int)

    def burst(self, first: int, count: int) -> int:
        for number in range(first, first + count):
            self.emit("numbers", number)
        return count


class Sink(Actor):
    """Adds up what comes along its edges."""

    def __init__(self) -> None:
        self.count = 0
        self.total = 0

    def take(self, number: int) -> None:
        self.count += 1
        self.total += number

    def so_far(self) -> list[int]:
        return [self.count, self.total]

    def restart(self) -> None:
        self.count = self.total = 0


class ActorStream(Graphed):
    """One source, one sink, one edge, two workers."""

    name = "actors"
    title = "actor to actor"

    def __init__(self, seats: Seats) -> None:  # noqa: ARG002 - the planner seats them
        graph = Graph(f"bench-stream-{os.getpid()}")
        source, sink = graph.add(Source, worker="source"), graph.add(Sink, worker="sink")
        graph.connect(source.numbers, sink.take, capacity=_CAPACITY)
        graph.expose(source.burst, reply=source.burst)
        graph.expose(sink.so_far, sink.restart)
        super().__init__(graph)

    def carry(self, count: int) -> int:
        call = self.client.call
        call("sink.restart")
        for first in range(1, count + 1, _BURST):
            call("source.burst", first, min(_BURST, count + 1 - first))
        while (found := call("sink.so_far"))[0] < count:
            pass
        return int(found[1])
