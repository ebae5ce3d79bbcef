"""What the graph's supervisor is asked: whether it answers, and the metrics of the whole graph.

Without a supervisor what dies is not replaced, and nobody new comes in.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator

from prometheus_client import Metric
from prometheus_client.registry import Collector

from ....runtime.clients.control import Control
from ....runtime.control.verbs import Hello, Metrics
from ....runtime.errors import SlabwireError
from ....runtime.telemetry.exposition import Family
from ....runtime.telemetry.metrics import families_of
from ..requests.metrics import metric_of

# Who asks more often is told the same again: for its metrics the supervisor reads the memory of every process.
_FRESH_S = 1.0
# It answers in well under a millisecond; one that starts many processes at once may take longer.
_ANSWER_S = 2.0


class Supervisor:
    """Asks what only a supervisor whose loop turns can answer. `ask` blocks, and raises where there is no answer."""

    def __init__(
        self, graph: str, ask: Callable[[], object] | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._graph = graph
        self._ask = ask or self._hello
        self._clock = clock
        self._answered = -_FRESH_S

    def _hello(self) -> None:
        """What clients ask it first, over the socket that they use."""
        with Control(self._graph, timeout_s=_ANSWER_S) as control:
            control.request(Hello())

    async def reason(self) -> str:
        """Why it cannot do its work; "" where it can."""
        if self._clock() - self._answered < _FRESH_S:
            return ""
        try:
            await asyncio.to_thread(self._ask)
        except Exception as error:
            return f"{error}: it is stopped or hangs, and what dies meanwhile is not replaced; see its log"
        self._answered = self._clock()
        return ""


def ask_supervisor(graph: str) -> list[Family]:
    """The families of a running graph; blocks. Raises Disconnected if it does not answer."""
    with Control(graph, timeout_s=_ANSWER_S) as control:
        answer = control.request(Metrics())
    return families_of(answer["status"], answer["durations"])


class GraphMetrics(Collector):
    """Registered beside the ingress's metrics. `ask` is called in a thread: the loop never waits for the supervisor.

    While that does not answer its families are missing, and `slabwire_supervisor_answers` is 0.
    """

    def __init__(self, ask: Callable[[], list[Family]], clock: Callable[[], float] = time.monotonic) -> None:
        self._ask = ask
        self._clock = clock
        self._families: list[Family] = []
        self._asked = -_FRESH_S
        self._asking: asyncio.Task[None] | None = None

    async def look(self) -> None:
        """Asks anew, unless that was done a moment ago; those who look at the same time share one answer."""
        if self._clock() - self._asked < _FRESH_S:
            return
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._look())
        await asyncio.shield(self._asking)  # one who stops looking must not blind the others

    async def _look(self) -> None:
        answers = Family("slabwire_supervisor_answers", "gauge", "1 if the supervisor said what it knows of the graph.")
        try:
            families = await asyncio.to_thread(self._ask)
        except SlabwireError:
            families = []
        answers.add(float(bool(families)), {})
        self._families = [*families, answers]
        self._asked = self._clock()

    def collect(self) -> Iterator[Metric]:
        for family in self._families:
            yield metric_of(family)
