"""Who is connected to whom: every bell, lane, slab and table of a graph, held by the supervisor.

So no worker's death takes them. It owns the descriptors and hands out duplicates; it knows nothing of processes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from ...shm.bell import BELL, new_doorbell
from ...shm.inflight import INFLIGHT
from ...shm.lane import LANE, RETURNS
from ...shm.layout import LINE_NBYTES, Layout
from ...shm.segment import Segment
from ...shm.slab import SLAB
from ..control.news import Gone, News
from ..graph.compiled import Routing
from ..host.sealed_document import pack_document, sealed_document
from ..message.capacities import FIRST_CLIENT
from ..placement.plan import Plan
from ..spec import ActorSpec
from ..telemetry.flight_recorder import EVENTS, RECORDER
from ..telemetry.stats import STATS, CellStats, WorkerStats
from .departures import Departures
from .descriptor_channel import Channel
from .peers import Line, Party, SlabLine


class Switchboard:
    """Built from the graph and its plan: all workers' parties and all edges' lanes exist before any worker does.

    Raises OutOfMemory when the machine has not enough for them. One thread.
    """

    def __init__(self, routing: Routing, plan: Plan) -> None:
        self.routing = routing
        self.plan = plan
        self.parties: dict[int, Party] = {}
        self.lines: dict[int, Line] = {}
        self.slabs: dict[int, SlabLine] = {}
        self.document = sealed_document(pack_document(routing.spec.to_plain()))
        self._last_number = 0
        self._next_client = FIRST_CLIENT
        self._last_slab = 0
        self.departures = Departures(self)
        for number, worker in enumerate(plan.workers, start=1):
            self._add_worker(number, worker.name, worker.instances)
        for edge, spec in enumerate(routing.spec.edges):
            for source in routing.instances[spec.source.actor]:
                for target in routing.instances[spec.target.actor]:
                    ends = self.home_of(source), self.home_of(target)
                    self.connect(*ends, "edge", source, target, spec.capacity, edge)

    def _actor(self, instance: str) -> ActorSpec:
        return self.routing.spec.actor(self.routing.actor_of[instance])

    def _add_worker(self, number: int, name: str, instances: tuple[str, ...]) -> None:
        party = self._add_party(number, name)
        party.instances = instances
        party.limit_nbytes = sum(self._actor(each).memory_bytes for each in instances)
        party.stats = Segment.create(STATS, f"counters of worker {name}", actors=len(instances))
        party.recorder = Segment.create(RECORDER, f"flight recorder of worker {name}", events=EVENTS)
        for each in instances:
            rows = 1 + self._most_in_flight(each)
            party.tables[each] = Segment.create(INFLIGHT, f"in-flight table of {each}", inputs=rows)

    def _most_in_flight(self, instance: str) -> int:
        actor = self._actor(instance)
        return max(actor.concurrency, *(each.batch.max_size for each in actor.handlers if each.batch), 0)

    def _add_party(self, number: int, name: str) -> Party:
        bell = Segment.create(BELL, f"bell of {name}")
        try:
            party = self.parties[number] = Party(number, name, bell, new_doorbell())
        except OSError:
            bell.close()
            raise
        return party

    def home_of(self, instance: str) -> Party:
        """The worker that runs an actor instance."""
        return next(party for party in self.parties.values() if instance in party.instances)

    def connect(
        self, producer: Party, consumer: Party, purpose: str, source: str, target: str, capacity: int, edge: int = -1
    ) -> Line:
        """A new lane between two parties. Raises OutOfMemory, or OSError where there is no descriptor for it."""
        self._last_number += 1
        # Of two the newest survives when its writer dies while it writes the next: see `redelivery`.
        capacity = max(2, capacity)
        # Inputs in flight keep their leases, beside those of all that wait in the lane.
        held = self._most_in_flight(target) if purpose != "reply" else 0
        leases = max(64, 2 * capacity, capacity + held)
        segment = Segment.create(LANE, f"lane {source} -> {target}", capacity=capacity, leases=leases)
        try:
            returns = Segment.create(RETURNS, f"returns of lane {source} -> {target}", leases=leases)
        except BaseException:
            segment.close()
            raise
        for each in (segment, returns):
            each.unmap()
        line = Line(self._last_number, segment, returns, producer, consumer, purpose, source, target, edge)
        self.lines[line.number] = line
        return line

    # -- clients -----------------------------------------------------------------------------------------------------

    def add_client(self, channel: Channel) -> Party:
        """A party for a process on this host that has connected to the local socket."""
        self._next_client += 1
        party = self._add_party(self._next_client, f"client-{self._next_client - FIRST_CLIENT}")
        party.channel = channel
        return party

    def remove_lines(self, lines: Iterable[Line]) -> None:
        """Lanes of which an end is gone for good."""
        for line in lines:
            line.consumer.refused[line.target] += line.returns.load("refused")
            del self.lines[line.number]
            line.close()

    def remove_party(self, party: Party, lines: list[Line]) -> None:
        """A client's end: all that it had goes, and its neighbours are told."""
        slabs = [each for each in self.slabs.values() if each.owner is party]
        self.remove_lines(lines)
        self.remove_slabs(slabs)
        del self.parties[party.number]
        party.close()
        for other in self._workers():
            other.forget(party.number, slabs)
        self.tell_workers(Gone(party.number, [each.number for each in lines], [each.number for each in slabs]))

    def tell_workers(self, news: News) -> None:
        """Those that hear now: the others ask for all that is theirs when they start."""
        for each in self._workers():
            each.tell(news)

    def clients(self) -> list[Party]:
        """Those that are there; for the others see `departures`."""
        return [each for each in self.parties.values() if not each.instances and each.channel is not None]

    def _workers(self) -> list[Party]:
        return [each for each in self.parties.values() if each.instances]

    # -- slabs -------------------------------------------------------------------------------------------------------

    def add_slab(self, party: Party, block_nbytes: int, blocks: int) -> SlabLine:
        """A slab of the party's own. Its pages are not taken: the owner does that."""
        lines = blocks * block_nbytes // LINE_NBYTES
        segment = Segment.create(SLAB, f"slab of {party.name}", reserve=False, blocks=blocks, payload_lines=lines)
        self._last_slab += 1
        slab = self.slabs[self._last_slab] = SlabLine(self._last_slab, segment, party)
        return slab

    def remove_slabs(self, slabs: Iterable[SlabLine]) -> None:
        """Slabs that their owner has given back, or has left behind."""
        for slab in slabs:
            del self.slabs[slab.number]
            slab.segment.close()

    # -- what is seen ------------------------------------------------------------------------------------------------

    def wake_neighbours(self, party: Party) -> None:
        """Somebody died: those who wait for it look again."""
        for line in self.lines.values():
            other = line.consumer if line.producer is party else line.producer if line.consumer is party else None
            if other is not None:
                os.eventfd_write(other.doorbell, 1)

    def worker_stats(self, party: Party) -> dict[str, int]:
        return WorkerStats(party.stats).read() if party.stats is not None else {}

    def actor_stats(self, party: Party, instance: str) -> dict[str, int]:
        if party.stats is None:
            return {}
        stats = CellStats(party.stats, party.instances.index(instance)).read()
        waiting = [e.waiting() for e in self.lines.values() if e.target == instance and e.purpose != "reply"]
        return {**stats, "waiting": sum(waiting)}

    def ignores_input(self, party: Party) -> bool:
        """Whether messages wait for a worker that sleeps though nothing keeps it from taking them."""
        if self.worker_stats(party).get("alive_ns"):
            return False
        rows = (self.actor_stats(party, each) for each in party.instances)
        return any(row["waiting"] and not row["in_flight"] and not row["outbox"] for row in rows)

    def segments(self) -> Iterator[tuple[str, Layout, Segment]]:
        """Every segment with what it is for."""
        for party in self.parties.values():
            yield f"bell of {party.name}", BELL, party.bell
            if party.stats is not None:
                yield f"counters of {party.name}", STATS, party.stats
            if party.recorder is not None:
                yield f"flight recorder of {party.name}", RECORDER, party.recorder
            for instance, table in party.tables.items():
                yield f"in-flight table of {instance}", INFLIGHT, table
        for line in self.lines.values():
            purpose = f"lane {line.number}: {line.source} -> {line.target} ({line.purpose})"
            yield purpose, LANE, line.segment
            yield f"returns of {purpose}", RETURNS, line.returns
        for slab in self.slabs.values():
            yield f"slab {slab.number} of {slab.owner.name}", SLAB, slab.segment

    def close(self) -> None:
        os.close(self.document)
        for _, _, segment in list(self.segments()):
            segment.close_descriptor()
        for party in self.parties.values():
            party.close()
