"""Where the supervisor serves the asks of workers and local clients. It does not wait for any."""

from __future__ import annotations

from typing import Any

from ...shm.errors import SlabwireError
from ...shm.layout import LINE_NBYTES
from ..control.asks import ASKS, EverythingMine, Grow, OpenRoute, Shrink, Start, View
from ..control.news import Cancelled, Shrunk
from ..control.offers import Assignment
from ..errors import Disconnected, OutOfMemory, Overloaded, ProtocolError, UnknownPort
from ..message.capacities import CALL_CAPACITY, REPLY_CAPACITY
from .descriptor_channel import Channel, close_all
from .offers import everything_of, hand_over, line_offers, slab_offer
from .peers import Line, Party
from .switchboard import Switchboard

_MOST_BLOCKS = 1 << 16
# Of one party, before others get their turn.
_BATCH = 64


class Requests:
    """For all parties of one switchboard. One thread at a time."""

    def __init__(self, board: Switchboard) -> None:
        self._board = board

    def serve(self, party: Party, channel: Channel) -> bool:
        """Answers what has come by the party's channel; False where its peer is gone, or sends what is no message."""
        try:
            channel.flush()
            for _ in range(_BATCH):
                if party.channel is not channel or (received := channel.receive()) is None:
                    break
                document, descriptors = received
                close_all(descriptors)  # nobody has any to give us
                self._answer(party, document)
        except (Disconnected, ProtocolError):
            return False
        return True

    def _answer(self, party: Party, document: dict[str, Any]) -> None:
        """A refusal is an answer, too."""
        answer: dict[str, Any] = {"answer": document.get("token")}
        try:
            self._do(party, document)
        except SlabwireError as error:
            answer["error"] = [error.code, str(error)]
        except OSError as error:  # EMFILE, ENFILE
            about = "each lane takes two; close clients, or raise RLIMIT_NOFILE (ulimit -Hn) before the graph starts"
            answer["error"] = [Overloaded.code, f"the supervisor is out of descriptors ({error}): {about}"]
        party.send(answer)

    def _do(self, party: Party, document: dict[str, Any]) -> None:
        match ASKS.read(document):
            case Start() if party.instances:
                self._assign(party)
            case EverythingMine():
                party.begin()
                if party.instances and (cancelled := self._board.departures.cancelled()):
                    party.tell(Cancelled(cancelled))
                hand_over(party, everything_of(party, self._board.lines.values(), self._board.slabs))
            case Grow(block_nbytes, blocks):
                self._grow(party, block_nbytes, blocks)
            case Shrink(number):
                self._shrink(party, number)
            case View(number):
                if (slab := self._board.slabs.get(number)) is not None:
                    party.viewed.add(number)
                    hand_over(party, [slab_offer(slab)])
            case OpenRoute(route):
                self._open_route(party, route)
            case refused:
                raise ProtocolError(f"{party.name} is no worker and cannot ask {type(refused).__name__}")

    def _assign(self, party: Party) -> None:
        planned = self._board.plan.worker_of(party.instances[0])
        instances, cores = list(party.instances), list(planned.cores)
        assignment = Assignment(party.number, instances, cores, planned.threads, planned.spin)
        hand_over(party, [(assignment, [self._board.document])])

    # -- slabs -------------------------------------------------------------------------------------------------------

    def _grow(self, party: Party, block_nbytes: int, blocks: int) -> None:
        held = sum(each.segment.nbytes for each in self._board.slabs.values() if each.owner is party)
        if not (0 < blocks <= _MOST_BLOCKS and block_nbytes > 0 and block_nbytes % LINE_NBYTES == 0):
            raise ProtocolError(f"a slab of {blocks} blocks of {block_nbytes} bytes was asked for")
        if held + blocks * block_nbytes > party.limit_nbytes:
            raise OutOfMemory(
                f"{party.name} holds {held} bytes of slabs and asks for {blocks * block_nbytes} more; its limit is "
                f"{party.limit_nbytes} (memory_bytes= of graph.add)"
            )
        hand_over(party, [slab_offer(self._board.add_slab(party, block_nbytes, blocks))])

    def _shrink(self, party: Party, number: int) -> None:
        """Its owner needs a slab no more, and no block of it is out."""
        slab = self._board.slabs.get(number)
        if slab is None or slab.owner is not party:
            raise ProtocolError(f"slab {number} is not one of {party.name}")
        self._board.remove_slabs([slab])
        for other in self._board.parties.values():
            if number in other.viewed:
                other.viewed.discard(number)
                other.tell(Shrunk([number]))

    # -- routes ------------------------------------------------------------------------------------------------------

    def _open_route(self, party: Party, route: int) -> None:
        """Lanes from a caller to the entry of a route, and back to it from everybody who may answer."""
        spec = self._board.routing.spec
        if not 0 <= route < (len(spec.routes) if party.instances else spec.exposed):
            raise UnknownPort(f"there is no route {route}")
        if route in party.routes:
            return
        # Callees first: when the caller has its lanes, everybody who may answer has been told.
        for line in self._lines_of_route(party, route):
            callee = line.producer if line.purpose == "reply" else line.consumer
            for near in dict.fromkeys((callee.number, party.number)):
                if self._board.parties[near].is_told:
                    hand_over(self._board.parties[near], line_offers(self._board.parties[near], line))
        party.routes.add(route)

    def _lines_of_route(self, party: Party, route: int) -> list[Line]:
        """The lines that a caller of a route still needs: all of them, or an error and none."""
        routing = self._board.routing
        actors = routing.actors_on(route)
        made: list[Line | None] = []
        try:
            made += (self._reply_line(each, party) for actor in actors for each in routing.instances[actor])
            made += (self._call_line(party, each) for each in routing.instances[actors[0]])
        except BaseException:
            self._board.remove_lines(filter(None, made))
            raise
        return [line for line in made if line is not None]

    def _reply_line(self, instance: str, party: Party) -> Line | None:
        """A new lane, unless one exists."""
        home = self._board.home_of(instance)
        if self._has("reply", instance, party.name, home.number, party.number):
            return None
        return self._board.connect(home, party, "reply", instance, party.name, REPLY_CAPACITY)

    def _call_line(self, party: Party, instance: str) -> Line | None:
        home = self._board.home_of(instance)
        if self._has("call", party.name, instance, party.number, home.number):
            return None
        return self._board.connect(party, home, "call", party.name, instance, CALL_CAPACITY)

    def _has(self, *wanted: object) -> bool:
        """Whether there is a lane of this purpose, source, target, producer and consumer."""
        return any(
            (each.purpose, each.source, each.target, each.producer.number, each.consumer.number) == wanted
            for each in self._board.lines.values()
        )
