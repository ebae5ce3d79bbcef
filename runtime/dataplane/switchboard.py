"""Who is connected to whom: every bell, lane, slab and table of a graph, held by the supervisor, beside the memory and
the sockets that its actors keep.

So no worker's death takes them. It owns the descriptors and hands out duplicates; it knows nothing of processes.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator

from ...shm.bell import BELL, new_doorbell
from ...shm.inflight import INFLIGHT, lanes_kept
from ...shm.lane import LANE, RETURNS
from ...shm.layout import LINE_NBYTES, Layout
from ...shm.segment import Segment
from ...shm.slab import SLAB
from ..control.channel import Gone, News
from ..errors import ProtocolError
from ..graph.compiled import Routing
from ..host.sealed_document import pack_document, sealed_document
from ..message.capacities import FIRST_CLIENT, item_leases, slots_for
from ..placement.plan import Plan
from ..spec import MOST_CALLS, ActorSpec
from ..telemetry.flight_recorder import EVENTS, RECORDER
from ..telemetry.stats import STATS, CellStats, WorkerStats
from .departures import Departures
from .descriptor_channel import Channel
from .kept import KEPT, KeptMemories
from .listeners import Listeners
from .peers import LaneRecord, Peer, SlabRecord


class Switchboard:
    """Built from the graph and its plan: the peer of each worker and the lanes of each edge exist before any
    worker does.

    `inherited` are the listening sockets that the graph was started with. Raises OutOfMemory when the machine has not
    enough memory. One thread.
    """

    def __init__(self, routing: Routing, plan: Plan, inherited: Collection[int] = ()) -> None:
        self.routing = routing
        self.plan = plan
        self.peers: dict[int, Peer] = {}
        self.lanes: dict[int, LaneRecord] = {}
        self.slabs: dict[int, SlabRecord] = {}
        self.kept = KeptMemories()
        self.listeners = Listeners(inherited)
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
        peer = self._add_peer(number, name, calls=sum(self._actor(each).calls for each in instances))
        peer.instances = instances
        peer.limit_nbytes = sum(self._actor(each).memory_bytes for each in instances)
        peer.stats = Segment.create(STATS, f"counters of worker {name}", actors=len(instances))
        peer.recorder = Segment.create(RECORDER, f"flight recorder of worker {name}", events=EVENTS)
        for each in instances:
            rows = 1 + self._most_in_flight(each)
            peer.tables[each] = Segment.create(INFLIGHT, f"in-flight table of {each}", inputs=rows)

    def _most_in_flight(self, instance: str) -> int:
        actor = self._actor(instance)
        return max(actor.concurrency, *(each.batch.max_size for each in actor.handlers if each.batch), 0)

    def _add_peer(self, number: int, name: str, calls: int) -> Peer:
        bell = _new_bell(name, calls)
        try:
            peer = self.peers[number] = Peer(number, name, bell, new_doorbell(), calls=calls)
        except OSError:
            bell.close()
            raise
        return peer

    def home_of(self, instance: str) -> Peer:
        """The worker that runs an actor instance."""
        return next(peer for peer in self.peers.values() if instance in peer.instances)

    def connect(
        self, producer: Peer, consumer: Peer, purpose: str, source: str, target: str, capacity: int, edge: int = -1
    ) -> LaneRecord:
        """A new lane between two peers. Raises OutOfMemory, or OSError where there is no descriptor for it."""
        self._last_number += 1
        # Of two the newest survives when its writer dies while it writes the next: see `redelivery`.
        capacity = max(2, capacity)
        # Inputs in flight keep their leases, beside those of all that wait in the lane.
        held = self._most_in_flight(target) if purpose != "reply" else 0
        leases = max(64, 2 * capacity, capacity + held)
        if purpose == "items":
            leases = item_leases(producer.calls, held)
        caller = {"reply": consumer, "items": producer}.get(purpose)
        streams = slots_for(caller.calls) if caller is not None else 1
        segment = Segment.create(LANE, f"lane {source} -> {target}", capacity=capacity, leases=leases)
        try:
            returns = Segment.create(RETURNS, f"returns of lane {source} -> {target}", leases=leases, streams=streams)
        except BaseException:
            segment.close()
            raise
        for each in (segment, returns):
            each.unmap()
        lane = LaneRecord(self._last_number, segment, returns, producer, consumer, purpose, source, target, edge)
        self.lanes[lane.number] = lane
        return lane

    # -- clients -----------------------------------------------------------------------------------------------------

    def add_client(self, channel: Channel) -> Peer:
        """A peer for a process on this host that has connected to the local socket."""
        self._next_client += 1
        name = f"client-{self._next_client - FIRST_CLIENT}"
        peer = self._add_peer(self._next_client, name, self.routing.spec.client_calls)
        peer.channel = channel
        return peer

    def allow_calls(self, peer: Peer, calls: int) -> None:
        """A client has so many calls in flight, and not as many as the graph says of clients. Raises ProtocolError for
        more than any process may have, and where the client has been told of its bell already.
        """
        is_late = peer.instances or peer.is_told or peer.routes
        if is_late or not 0 < calls <= MOST_CALLS:
            raise ProtocolError(
                f"{peer.name} cannot have {calls} calls; a client says how many at first, up to {MOST_CALLS}"
            )
        bell = _new_bell(peer.name, calls)
        peer.bell.close()
        peer.bell, peer.calls = bell, calls

    def remove_lanes(self, lanes: Iterable[LaneRecord]) -> None:
        """Lanes of which an end is gone for good."""
        for lane in lanes:
            lane.consumer.refused[lane.target] += lane.returns.load("refused")
            del self.lanes[lane.number]
            lane.close()

    def remove_peer(self, peer: Peer, lanes: list[LaneRecord]) -> None:
        """A client's end: all that it had goes, and its neighbours are told."""
        slabs = [each for each in self.slabs.values() if each.owner is peer]
        self.remove_lanes(lanes)
        self.remove_slabs(slabs)
        del self.peers[peer.number]
        peer.close()
        for other in self._workers():
            other.given.discard(peer.number)
            other.viewed.difference_update(each.number for each in slabs)
        self.tell_workers(Gone(peer.number, [each.number for each in lanes], [each.number for each in slabs]))

    def tell_workers(self, news: News) -> None:
        """Those that hear now: the others ask for all that is theirs when they start."""
        for each in self._workers():
            each.tell(news)

    def clients(self) -> list[Peer]:
        """Those that are there; for the others see `departures`."""
        return [each for each in self.peers.values() if not each.instances and each.channel is not None]

    def _workers(self) -> list[Peer]:
        return [each for each in self.peers.values() if each.instances]

    # -- slabs -------------------------------------------------------------------------------------------------------

    def add_slab(self, peer: Peer, block_nbytes: int, blocks: int) -> SlabRecord:
        """A slab of the peer's own. Its pages are not taken: the owner does that."""
        lines = blocks * block_nbytes // LINE_NBYTES
        segment = Segment.create(SLAB, f"slab of {peer.name}", reserve=False, blocks=blocks, payload_lines=lines)
        self._last_slab += 1
        slab = self.slabs[self._last_slab] = SlabRecord(self._last_slab, segment, peer)
        return slab

    def remove_slabs(self, slabs: Iterable[SlabRecord]) -> None:
        """Slabs that their owner has given back, or has left behind."""
        for slab in slabs:
            del self.slabs[slab.number]
            slab.segment.close()

    def room_nbytes(self, peer: Peer) -> int:
        """What a peer's slabs, and what its actors keep, may still take. Memory that replicas share counts where the
        first of them is.
        """
        slabs = sum(each.segment.nbytes for each in self.slabs.values() if each.owner is peer)
        firsts = {self.routing.actor_of[each] for each in peer.instances if self.is_first(each)}
        return peer.limit_nbytes - slabs - sum(each.segment.nbytes for each in self.kept if each.actor in firsts)

    def is_first(self, instance: str) -> bool:
        """Of its actor's replicas."""
        return self.routing.instances[self.routing.actor_of[instance]][0] == instance

    # -- what is seen ------------------------------------------------------------------------------------------------

    def wake_neighbours(self, peer: Peer) -> None:
        """Somebody died: those who wait for it look again."""
        for lane in self.lanes.values():
            other = lane.consumer if lane.producer is peer else lane.producer if lane.consumer is peer else None
            if other is not None:
                os.eventfd_write(other.doorbell, 1)

    def worker_stats(self, peer: Peer) -> dict[str, int]:
        return WorkerStats(peer.stats).read() if peer.stats is not None else {}

    def actor_stats(self, peer: Peer, instance: str) -> dict[str, int]:
        if peer.stats is None:
            return {}
        stats = CellStats(peer.stats, peer.instances.index(instance)).read()
        return {**stats, "waiting": self._waiting(instance)}

    def _waiting(self, instance: str) -> int:
        return sum(e.waiting() for e in self.lanes.values() if e.target == instance and e.purpose != "reply")

    def ignores_input(self, peer: Peer) -> bool:
        """Whether messages wait for a worker that sleeps though nothing keeps it from taking them."""
        if self.worker_stats(peer).get("alive_ns"):
            return False
        rows = (self.actor_stats(peer, each) for each in peer.instances)
        return any(row["waiting"] and not row["in_flight"] and not row["outbox"] for row in rows)

    # -- what a drain waits for: read from shared memory, without asking workers ---------------------------------------

    def is_idle(self, gone: Collection[str] = ()) -> bool:
        """Whether nothing waits and nothing is being handled: a drained graph. What `gone` workers have left is no
        matter. What moves on while the graph is looked at is found by the count of what was sent.
        """
        before = self._published()
        return not (self.unfinished(gone) or self._is_any_busy(gone)) and self._published() == before

    def unfinished(self, gone: Collection[str] = ()) -> dict[str, int]:
        """How many inputs wait for each actor or are being handled, where there are any. What the workers `gone` have
        left does not count: nobody waits for that.
        """
        found: dict[str, int] = {}
        for peer, instance in self._instances(gone):
            # A plain handler's input is in its lane until the handler has returned.
            if count := self._waiting(instance) + len(lanes_kept(peer.tables[instance])):
                actor = self.routing.actor_of[instance]
                found[actor] = found.get(actor, 0) + count
        return found

    def _instances(self, gone: Collection[str]) -> Iterator[tuple[Peer, str]]:
        for peer in self.peers.values():
            if peer.name not in gone:
                yield from ((peer, each) for each in peer.instances)

    def _published(self) -> int:
        return sum(each.published() for each in self.lanes.values())

    def _is_any_busy(self, gone: Collection[str]) -> bool:
        """Whether a handler runs, outside of any input perhaps, or messages wait for room, perhaps they alone."""
        for peer, instance in self._instances(gone):
            stats = self.actor_stats(peer, instance)
            reaches_all = not any(e.source == instance and e.consumer.name in gone for e in self.lanes.values())
            if stats["busy_since_ns"] or (stats["outbox"] and reaches_all):
                return True
        return False

    def segments(self) -> Iterator[tuple[str, Layout, Segment]]:
        """Every segment with what it is for."""
        for peer in self.peers.values():
            yield f"bell of {peer.name}", BELL, peer.bell
            if peer.stats is not None:
                yield f"counters of {peer.name}", STATS, peer.stats
            if peer.recorder is not None:
                yield f"flight recorder of {peer.name}", RECORDER, peer.recorder
            for instance, table in peer.tables.items():
                yield f"in-flight table of {instance}", INFLIGHT, table
        for lane in self.lanes.values():
            purpose = f"lane {lane.number}: {lane.source} -> {lane.target} ({lane.purpose})"
            yield purpose, LANE, lane.segment
            yield f"returns of {purpose}", RETURNS, lane.returns
        for slab in self.slabs.values():
            yield f"slab {slab.number} of {slab.owner.name}", SLAB, slab.segment
        for memory in self.kept:
            yield f"memory {memory.name!r} kept by {memory.actor}", KEPT, memory.segment

    def close(self) -> None:
        self.listeners.close()
        os.close(self.document)
        for _, _, segment in list(self.segments()):
            segment.close_descriptor()
        for peer in self.peers.values():
            peer.close()


def _new_bell(name: str, calls: int) -> Segment:
    """The bell of a process that may have so many calls in flight."""
    return Segment.create(BELL, f"bell of {name}", calls=slots_for(calls))
