"""Many edges into one worker: sources that share a process, and sinks that each have one and 1 to 64 of the sources."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ...runtime.actor.actor import Actor, Output
from ...runtime.launch.graph import Graph
from ..harness.contestant import Seats
from .graph import Graphed
from .streams import Sink

_BURST = 256
_CAPACITY = 512


class Spout(Actor):
    """Emits numbers to the sink that it is told, by number; there is an output for each."""

    to_0 = Output(int)
    to_1 = Output(int)
    to_2 = Output(int)
    to_3 = Output(int)

    def burst(self, sink: int, first: int, count: int) -> int:
        port = f"to_{sink}"
        for number in range(first, first + count):
            self.emit(port, number)
        return count


class Funnel(Graphed):
    """Sink number i has edges from the first `widths[i]` of the sources."""

    name = "actors"
    title = "actors"

    def __init__(self, seats: Seats, widths: Sequence[int]) -> None:  # noqa: ARG002 - the planner seats them
        self.widths = widths
        graph = Graph(f"bench-edges-{os.getpid()}")
        spouts = [graph.add(Spout, name=f"spout{each}", worker="spouts") for each in range(max(widths))]
        for number, width in enumerate(widths):
            sink = graph.add(Sink, name=f"sink{number}", worker=f"sink{number}")
            for spout in spouts[:width]:
                graph.connect(getattr(spout, f"to_{number}"), sink.take, capacity=_CAPACITY)
            graph.expose(sink.so_far, sink.restart)
        for spout in spouts:
            graph.expose(spout.burst, reply=spout.burst)
        super().__init__(graph)

    def carry(self, sink: int, count: int) -> int:
        """Sends 1 to `count` to a sink, by all of its edges in turn; the sum that it got."""
        call = self.client.call
        call(f"sink{sink}.restart")
        for turn, first in enumerate(range(1, count + 1, _BURST)):
            spout = turn % self.widths[sink]
            call(f"spout{spout}.burst", sink, first, min(_BURST, count + 1 - first))
        while (found := call(f"sink{sink}.so_far"))[0] < count:
            pass
        return int(found[1])
