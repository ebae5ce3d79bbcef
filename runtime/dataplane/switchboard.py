"""Who is connected to whom: every bell, lane, slab and table of a graph, held by the supervisor.

So no worker's death takes them. It owns the descriptors and hands out duplicates; it knows nothing of processes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

from ...shm.bell import BELL, new_doorbell
from ...shm.errors import OutOfMemory, SlabwireError
from ...shm.inflight import INFLIGHT
from ...shm.lane import LANE, RETURNS
from ...shm.layout import LINE_NBYTES, Layout
from ...shm.segment import Segment
from ...shm.slab import SLAB
from ..errors import Overloaded, ProtocolError, UnknownPort
from ..graph.compiled import Routing
from ..host.sealed_document import pack_document, sealed_document
from ..message.capacities import CALL_CAPACITY, FIRST_CLIENT, REPLY_CAPACITY
from ..placement.plan import Plan
from ..spec import ActorSpec
from ..telemetry.flight_recorder import EVENTS, RECORDER
from ..telemetry.stats import STATS, CellStats, WorkerStats
from .departures import Departures
from .descriptor_channel import MOST_DESCRIPTORS, Channel
from .peers import Line, Party, SlabLine

_MOST_BLOCKS = 1 << 16


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
        self._document = sealed_document(pack_document(routing.spec.to_plain()))
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
                    self._connect(*ends, "edge", source, target, spec.capacity, edge)

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

    def _connect(
        self, producer: Party, consumer: Party, purpose: str, source: str, target: str, capacity: int, edge: int = -1
    ) -> Line:
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
        for slab in slabs:
            del self.slabs[slab.number]
            slab.segment.close()
        del self.parties[party.number]
        _close_party(party)
        for other in self._workers():
            other.forget(party.number, slabs)
        numbers = {"lanes": [each.number for each in lines], "slabs": [each.number for each in slabs]}
        self.tell_workers({"gone": party.number, **numbers})

    def tell_workers(self, message: dict[str, Any]) -> None:
        """Those that hear now: the others ask for all that is theirs when they start."""
        for each in self._workers():
            if each.channel is not None:
                _tell(each, message, [])

    def clients(self) -> list[Party]:
        """Those that are there; for the others see `departures`."""
        return [each for each in self.parties.values() if not each.instances and each.channel is not None]

    def _workers(self) -> list[Party]:
        return [each for each in self.parties.values() if each.instances]

    # -- what is asked -----------------------------------------------------------------------------------------------

    def answer(self, party: Party, message: dict[str, Any]) -> None:
        """Serves one request of a party; a refusal is an answer too."""
        if party.channel is None:
            return
        token = message.get("token")
        try:
            extra = self._serve(party, message)
        except SlabwireError as error:
            extra = {"error": [error.code, str(error)]}
        except OSError as error:  # EMFILE, ENFILE
            about = "each lane takes two; close clients, or raise RLIMIT_NOFILE (ulimit -Hn) before the graph starts"
            extra = {"error": [Overloaded.code, f"the supervisor is out of descriptors ({error}): {about}"]}
        except (KeyError, TypeError, ValueError, IndexError) as error:
            extra = {"error": [ProtocolError.code, f"request {message.get('ask')!r} is malformed: {error!r}"]}
        _tell(party, {"answer": token, **extra}, [])

    def _serve(self, party: Party, message: dict[str, Any]) -> dict[str, Any]:
        what = message["ask"]
        if what == "start" and party.instances:
            self._offer(party, [({"what": "spec"}, [self._document])])
            planned = self.plan.worker_of(party.instances[0])
            settings = {"cores": list(planned.cores), "threads": planned.threads, "spin": planned.spin}
            return {"endpoint": party.number, "instances": list(party.instances), **settings}
        if what == "offers":
            self._offer_all(party)
        elif what == "grow":
            return {"slab": self._grow(party, message["block_nbytes"], message["blocks"])}
        elif what == "shrink":
            self._shrink(party, message["slab"])
        elif what == "view":
            slab = self.slabs.get(message["slab"])
            if slab is not None:
                party.viewed.add(slab.number)
                self._offer(party, [self._slab_offer(slab)])
        elif what == "route":
            self._open_route(party, message["route"])
        else:
            raise ProtocolError(f"nobody here knows the request {what!r}")
        return {}

    def _offer_all(self, party: Party) -> None:
        """Everything that is a party's: at the start of a worker and of each successor, and of a client."""
        party.begin()
        if party.instances and (cancelled := self.departures.cancelled()):
            _tell(party, {"cancelled": cancelled}, [])
        offers = [self._bell_offer(party, party)]
        for instance, table in party.tables.items():
            offers.append(({"what": "inflight", "instance": instance}, [table.fd]))
        if party.stats is not None:
            offers.append(({"what": "stats"}, [party.stats.fd]))
        if party.recorder is not None:
            offers.append(({"what": "recorder"}, [party.recorder.fd]))
        for line in self.lines.values():
            offers += self._line_offers(party, line)
        offers += [self._slab_offer(slab) for slab in self.slabs.values() if slab.owner is party]
        self._offer(party, offers)

    def _line_offers(self, party: Party, line: Line) -> Iterator[tuple[dict[str, Any], list[int]]]:
        for role, near, far in (("producer", line.producer, line.consumer), ("consumer", line.consumer, line.producer)):
            if near is not party:
                continue
            if far is not party and far.number not in party.given:
                party.given.add(far.number)
                yield self._bell_offer(party, far)
            label = {"what": "lane", "lane": line.number, "role": role, "peer": far.number, "purpose": line.purpose}
            yield (
                {**label, "source": line.source, "target": line.target, "edge": line.edge},
                [line.segment.fd, line.returns.fd],
            )

    def _bell_offer(self, party: Party, other: Party) -> tuple[dict[str, Any], list[int]]:
        party.given.add(other.number)
        return {"what": "bell", "endpoint": other.number}, other.descriptors()

    def _slab_offer(self, slab: SlabLine) -> tuple[dict[str, Any], list[int]]:
        return {"what": "slab", "slab": slab.number, "owner": slab.owner.number}, [slab.segment.fd]

    def _offer(self, party: Party, offers: list[tuple[dict[str, Any], list[int]]]) -> None:
        labels: list[dict[str, Any]] = []
        descriptors: list[int] = []
        for label, own in offers:
            if len(descriptors) + len(own) > MOST_DESCRIPTORS:
                _tell(party, {"offer": labels}, descriptors)
                labels, descriptors = [], []
            labels.append({**label, "descriptors": len(own)})
            descriptors += own
        if labels:
            _tell(party, {"offer": labels}, descriptors)

    def _grow(self, party: Party, block_nbytes: int, blocks: int) -> int:
        held = sum(each.segment.nbytes for each in self.slabs.values() if each.owner is party)
        if not (0 < blocks <= _MOST_BLOCKS and block_nbytes > 0 and block_nbytes % LINE_NBYTES == 0):
            raise ProtocolError(f"a slab of {blocks} blocks of {block_nbytes} bytes was asked for")
        if held + blocks * block_nbytes > party.limit_nbytes:
            raise OutOfMemory(
                f"{party.name} holds {held} bytes of slabs and asks for {blocks * block_nbytes} more; its limit is "
                f"{party.limit_nbytes} (memory_bytes= of graph.add)"
            )
        segment = Segment.create(
            SLAB,
            f"slab of {party.name}",
            reserve=False,
            blocks=blocks,
            payload_lines=blocks * block_nbytes // LINE_NBYTES,
        )
        self._last_slab += 1
        slab = SlabLine(self._last_slab, segment, party)
        self.slabs[slab.number] = slab
        self._offer(party, [self._slab_offer(slab)])
        return slab.number

    def _shrink(self, party: Party, number: int) -> None:
        """Its owner needs a slab no more, and no block of it is out."""
        slab = self.slabs.get(number)
        if slab is None or slab.owner is not party:
            raise ProtocolError(f"slab {number} is not one of {party.name}")
        del self.slabs[number]
        slab.segment.close()
        for other in self.parties.values():
            if number in other.viewed:
                other.viewed.discard(number)
                _tell(other, {"shrunk": [number]}, [])

    def _open_route(self, party: Party, route: int) -> None:
        """Lanes from a caller to the entry of a route, and back to it from everybody who may answer."""
        allowed = len(self.routing.spec.routes) if party.instances else self.routing.spec.exposed
        if not 0 <= route < allowed:
            raise UnknownPort(f"there is no route {route}")
        if route in party.routes:
            return
        # Callees first: when the caller has its lanes, everybody who may answer has been told.
        for line in self._lines_of_route(party, route):
            callee = line.producer if line.purpose == "reply" else line.consumer
            for near in dict.fromkeys((callee.number, party.number)):
                if self.parties[near].is_told:
                    self._offer(self.parties[near], list(self._line_offers(self.parties[near], line)))
        party.routes.add(route)

    def _lines_of_route(self, party: Party, route: int) -> list[Line]:
        """The lines that a caller of a route still needs: all of them, or an error and none."""
        actors = self.routing.actors_on(route)
        made: list[Line | None] = []
        try:
            made += (self._reply_line(each, party) for actor in actors for each in self.routing.instances[actor])
            made += (self._call_line(party, each) for each in self.routing.instances[actors[0]])
        except BaseException:
            for line in filter(None, made):
                del self.lines[line.number]
                line.close()
            raise
        return [line for line in made if line is not None]

    def _reply_line(self, instance: str, party: Party) -> Line | None:
        """A new lane, unless one exists."""
        home = self.home_of(instance)
        if self._has("reply", instance, party, home, party):
            return None
        return self._connect(home, party, "reply", instance, party.name, REPLY_CAPACITY)

    def _call_line(self, party: Party, instance: str) -> Line | None:
        home = self.home_of(instance)
        if self._has("call", instance, party, party, home):
            return None
        return self._connect(party, home, "call", party.name, instance, CALL_CAPACITY)

    def _has(self, purpose: str, instance: str, caller: Party, producer: Party, consumer: Party) -> bool:
        named = (instance, caller.name) if purpose == "reply" else (caller.name, instance)
        return any(
            (each.purpose, each.source, each.target) == (purpose, *named)
            and each.producer is producer
            and each.consumer is consumer
            for each in self.lines.values()
        )

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
        os.close(self._document)
        for _, _, segment in list(self.segments()):
            segment.close_descriptor()
        for party in self.parties.values():
            _close_party(party)


def _close_party(party: Party) -> None:
    party.bell.close_descriptor()
    if party.doorbell >= 0:
        os.close(party.doorbell)
        party.doorbell = -1
    if party.channel is not None:
        party.channel.close()
        party.channel = None


def _tell(party: Party, message: dict[str, Any], descriptors: list[int]) -> None:
    if party.channel is None:
        return
    try:
        party.channel.send(message, descriptors)
    except SlabwireError:
        return  # it is dying: whoever watches it will notice
