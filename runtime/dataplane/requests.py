"""Where the supervisor serves the asks of workers and local clients, and hands over descriptors; it never waits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ...shm.errors import SlabwireError
from ...shm.layout import LINE_NBYTES
from ..control.channel import (
    ASKS,
    OFFERS,
    Assignment,
    BellOffer,
    EverythingMine,
    Grow,
    Keep,
    KeptOffer,
    LaneOffer,
    Listen,
    Offer,
    OpenRoute,
    OpenRouteFor,
    RecorderOffer,
    Shrink,
    Shrunk,
    SlabOffer,
    SocketOffer,
    Start,
    StatsOffer,
    TableOffer,
    View,
)
from ..errors import Disconnected, OutOfMemory, Overloaded, ProtocolError, UnknownPort
from ..message.capacities import ITEM_CAPACITY, call_capacity, reply_capacity
from .descriptor_channel import MOST_DESCRIPTORS, Channel, close_all
from .peers import LaneRecord, Peer, SlabRecord
from .switchboard import Switchboard

_MOST_BLOCKS = 1 << 16
# Of one peer, before others get their turn.
_BATCH = 64

Labelled = tuple[Offer, list[int]]


class Requests:
    """For all peers of one switchboard. One thread at a time."""

    def __init__(self, board: Switchboard) -> None:
        self._board = board

    def serve(self, peer: Peer, channel: Channel) -> bool:
        """Answers what has come by the peer's channel; False where its process is gone, or sends what is no message."""
        try:
            channel.flush()
            for _ in range(_BATCH):
                if peer.channel is not channel or (received := channel.receive()) is None:
                    break
                document, descriptors = received
                close_all(descriptors)  # nobody has any to give us
                self._answer(peer, document)
        except (Disconnected, ProtocolError):
            return False
        return True

    def _answer(self, peer: Peer, document: dict[str, Any]) -> None:
        """A refusal is an answer, too. Raises ProtocolError where nothing can be answered."""
        if not isinstance(token := document.get("token"), int):  # another value might be too deep to be packed
            raise ProtocolError("an ask comes with a token, which is a number")
        answer: dict[str, Any] = {"answer": token}
        try:
            self._do(peer, document)
        except SlabwireError as error:
            answer["error"] = [error.code, str(error)]
        except OSError as error:  # EMFILE, ENFILE
            about = "each lane takes two; close clients, or raise RLIMIT_NOFILE (ulimit -Hn) before the graph starts"
            answer["error"] = [Overloaded.code, f"the supervisor is out of descriptors ({error}): {about}"]
        peer.send(answer)

    def _do(self, peer: Peer, document: dict[str, Any]) -> None:
        match ASKS.read(document):
            case Start() if peer.instances:
                self._assign(peer)
            case EverythingMine(calls):
                self._offer_all(peer, calls)
            case Grow(block_nbytes, blocks):
                self._grow(peer, block_nbytes, blocks)
            case Shrink(number):
                self._shrink(peer, number)
            case View(number):
                if (slab := self._board.slabs.get(number)) is not None:
                    peer.viewed.add(number)
                    hand_over(peer, [slab_offer(slab)])
            case OpenRoute(route):
                self._open_route(peer, route, peer)
            case OpenRouteFor(route, endpoint) if peer.instances:
                # Nobody would take away the lanes of a client that has gone.
                caller = self._board.peers.get(endpoint)
                if caller is not None and (caller.instances or caller.channel is not None):
                    self._open_route(peer, route, caller)
            case Keep(instance) as ask if instance in peer.instances:
                self._keep(peer, ask)
            case Listen(instance, address) if self._has_replica_of(peer, instance):
                self._listen(peer, instance, address)
            case refused:
                raise ProtocolError(f"{peer.name} cannot ask {type(refused).__name__}, or not of that actor")

    def _offer_all(self, peer: Peer, calls: int) -> None:
        """A process is there. A client may say how many calls it wants to have in flight (0: as many as others)."""
        if calls:
            self._board.allow_calls(peer, calls)
        peer.begin()
        if peer.instances:
            self._board.departures.tell_cancelled(peer)
        hand_over(peer, everything_of(peer, self._board.lanes.values(), self._board.slabs))

    def _assign(self, peer: Peer) -> None:
        planned = self._board.plan.worker_of(peer.instances[0])
        instances, cores = list(peer.instances), list(planned.cores)
        assignment = Assignment(peer.number, instances, cores, planned.threads, planned.spin)
        hand_over(peer, [(assignment, [self._board.document])])

    # -- slabs -------------------------------------------------------------------------------------------------------

    def _grow(self, peer: Peer, block_nbytes: int, blocks: int) -> None:
        if not (0 < blocks <= _MOST_BLOCKS and block_nbytes > 0 and block_nbytes % LINE_NBYTES == 0):
            raise ProtocolError(f"a slab of {blocks} blocks of {block_nbytes} bytes was asked for")
        room = self._board.room_nbytes(peer)
        if blocks * block_nbytes > room:
            raise OutOfMemory(
                f"{peer.name} holds {peer.limit_nbytes - room} bytes of slabs and kept memory, and asks for "
                f"{blocks * block_nbytes} more; its limit is {peer.limit_nbytes} (memory_bytes= of graph.add)"
            )
        hand_over(peer, [slab_offer(self._board.add_slab(peer, block_nbytes, blocks))])

    def _shrink(self, peer: Peer, number: int) -> None:
        """Its owner needs a slab no more, and no block of it is out."""
        slab = self._board.slabs.get(number)
        if slab is None or slab.owner is not peer:
            raise ProtocolError(f"slab {number} is not one of {peer.name}")
        self._board.remove_slabs([slab])
        for other in self._board.peers.values():
            if number in other.viewed:
                other.viewed.discard(number)
                other.tell(Shrunk([number]))

    # -- what actors keep ---------------------------------------------------------------------------------------------

    def _keep(self, peer: Peer, ask: Keep) -> None:
        """Its own, or by "actor.name" that of another actor, for which room is taken then."""
        routing = self._board.routing
        owner, _, name = ask.name.rpartition(".")
        actor = owner or routing.actor_of[ask.instance]
        if actor not in routing.instances:
            raise ProtocolError(f"{ask.instance} asked for memory of {actor!r}, which is no actor")
        offer, ask = KeptOffer(ask.instance, ask.name), ask._replace(name=name)
        found = self._board.kept.find(actor, ask)
        if found is None:
            first = self._board.home_of(routing.instances[actor][0])
            found = self._board.kept.make(actor, ask, self._board.room_nbytes(first))
        hand_over(peer, [(offer, [found.segment.fd])])

    def _has_replica_of(self, peer: Peer, instance: str) -> bool:
        """Whether this instance, or another of the same actor, is in the peer's process."""
        actor_of = self._board.routing.actor_of
        return actor_of.get(instance, "") in {actor_of[each] for each in peer.instances}

    def _listen(self, peer: Peer, instance: str, address: str) -> None:
        routing = self._board.routing
        actor = routing.actor_of[instance]
        descriptor = self._board.listeners.open(actor, len(routing.instances[actor]), instance, address)
        hand_over(peer, [(SocketOffer(instance, address), [descriptor])])

    # -- routes ------------------------------------------------------------------------------------------------------

    def _open_route(self, peer: Peer, route: int, caller: Peer) -> None:
        """What a peer asks for: lanes from a caller to the entry of a route, and back to it from all who may answer."""
        spec = self._board.routing.spec
        if not 0 <= route < (len(spec.routes) if peer.instances else spec.exposed):
            raise UnknownPort(f"there is no route {route}")
        if route in caller.routes:
            return
        # Callees first: when the caller has its lanes, everybody who may answer has been told.
        for lane in self._lanes_of_route(caller, route):
            callee = lane.producer if lane.purpose == "reply" else lane.consumer
            for near in dict.fromkeys((callee.number, caller.number)):
                if self._board.peers[near].is_told:
                    hand_over(self._board.peers[near], lane_offers(self._board.peers[near], lane))
        caller.routes.add(route)

    def _lanes_of_route(self, peer: Peer, route: int) -> list[LaneRecord]:
        """The lanes that a caller of a route still needs: all of them, or an error and none."""
        routing = self._board.routing
        actors = routing.actors_on(route)
        home_of = self._board.home_of
        made: list[LaneRecord | None] = []
        try:
            for each in (instance for actor in actors for instance in routing.instances[actor]):
                made += [self._lane(home_of(each), peer, "reply", each, peer.name, reply_capacity(peer.calls))]
            for each in routing.instances[actors[0]]:
                made += [self._lane(peer, home_of(each), "call", peer.name, each, call_capacity(peer.calls))]
                if routing.entry(route).sent_stream is not None:
                    made += [self._lane(peer, home_of(each), "items", peer.name, each, ITEM_CAPACITY)]
        except BaseException:
            self._board.remove_lanes(filter(None, made))
            raise
        return [lane for lane in made if lane is not None]

    def _lane(
        self, producer: Peer, consumer: Peer, purpose: str, source: str, target: str, capacity: int
    ) -> LaneRecord | None:
        """A new lane, unless one exists."""
        for each in self._board.lanes.values():
            ends = each.producer is producer and each.consumer is consumer
            if ends and (each.purpose, each.source, each.target) == (purpose, source, target):
                return None
        return self._board.connect(producer, consumer, purpose, source, target, capacity)


def hand_over(peer: Peer, offers: Iterable[Labelled]) -> None:
    """Sends offers, in as many messages as their descriptors need."""
    labels: list[Offer] = []
    descriptors: list[int] = []
    for label, own in offers:
        if len(descriptors) + len(own) > MOST_DESCRIPTORS:
            _send(peer, labels, descriptors)
            labels, descriptors = [], []
        labels.append(label)
        descriptors += own
    if labels:
        _send(peer, labels, descriptors)


def _send(peer: Peer, labels: list[Offer], descriptors: list[int]) -> None:
    peer.send({"offers": [OFFERS.document(each) for each in labels]}, descriptors)


def everything_of(peer: Peer, lanes: Iterable[LaneRecord], slabs: Mapping[int, SlabRecord]) -> Iterator[Labelled]:
    """All that is a peer's: at the start of a worker and of each successor, and of a client."""
    yield _bell_offer(peer, peer)
    for instance, table in peer.tables.items():
        yield TableOffer(instance), [table.fd]
    if peer.stats is not None:
        yield StatsOffer(), [peer.stats.fd]
    if peer.recorder is not None:
        yield RecorderOffer(), [peer.recorder.fd]
    for lane in lanes:
        yield from lane_offers(peer, lane)
    yield from (slab_offer(each) for each in slabs.values() if each.owner is peer)


def lane_offers(peer: Peer, lane: LaneRecord) -> Iterator[Labelled]:
    """The peer's ends of a lane. The bell of who is at the other end comes first, unless the peer has it already."""
    for role, near, far in (("producer", lane.producer, lane.consumer), ("consumer", lane.consumer, lane.producer)):
        if near is not peer:
            continue
        if far is not peer and far.number not in peer.given:
            yield _bell_offer(peer, far)
        label = LaneOffer(lane.number, role, far.number, lane.purpose, lane.source, lane.target, lane.edge)
        yield label, [lane.segment.fd, lane.returns.fd]


def _bell_offer(peer: Peer, other: Peer) -> Labelled:
    peer.given.add(other.number)
    return BellOffer(other.number), [other.bell.fd, other.doorbell]


def slab_offer(slab: SlabRecord) -> Labelled:
    """Of one slab, for its owner or a reader."""
    return SlabOffer(slab.number, slab.owner.number), [slab.segment.fd]
