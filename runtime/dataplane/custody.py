"""What a worker has of what the supervisor holds for its actors: kept memory, and listening sockets."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping

from ...shm.layout import Layout
from ...shm.segment import Segment, Stamp
from ..actor.kept import Kept
from ..control.channel import Ask, Keep, KeptOffer, Listen, SocketOffer
from ..errors import GraphError, LayoutError
from ..graph.compiled import Routing
from ..graph.node import NAME, NAME_RULE
from ..host.forks import keep_from_children
from ..spelling import near_or_all
from .listen_address import TcpAddress, numeric, read_address


class Custody:
    """Of one worker; its thread alone. `ask` comes back when what was asked for has been `offered`."""

    def __init__(self, ask: Callable[[Ask], None], routing: Routing) -> None:
        self._ask = ask
        self._routing = routing
        self._arrived: dict[KeptOffer | SocketOffer, int] = {}
        self._kept: dict[KeptOffer, tuple[Stamp, Kept]] = {}

    def offered(self, offer: KeptOffer | SocketOffer, descriptor: int) -> None:
        """Takes over the descriptor."""
        self._close(offer)
        self._arrived[offer] = descriptor

    def keep(self, instance: str, name: str, layout: Layout, parameters: Mapping[str, int]) -> Kept:
        """What the instance's actor keeps under this name, or another, to be read: "actor.name". Raises LayoutError,
        OutOfMemory, GraphError for the name.
        """
        parts = name.split(".", 1) if isinstance(name, str) else ()
        if not (parts and all(map(NAME.fullmatch, parts))):
            raise GraphError(
                f"{instance} keeps memory under the name {name!r}; it must consist of {NAME_RULE}, behind the name of "
                "its actor and a dot where another actor keeps it"
            )
        actor = self._routing.actor_of[instance]
        owner = parts[0] if len(parts) == 2 else actor
        if owner not in self._routing.instances:
            raise GraphError(
                f"{instance} reads what {owner!r} keeps as {parts[1]!r}, and no actor of the graph has that name"
                f"{near_or_all(owner, self._routing.instances)}"
            )
        placed = layout.place(**parameters)
        if len(layout.groups) == 1:
            raise LayoutError(
                f"layout {layout.name!r}, which {instance} keeps as {name!r}, has no words: give it a Group"
            )
        stamp, offer = Stamp.of(layout, parameters), KeptOffer(instance, name)
        known, kept = self._kept.get(offer, (None, None))
        if kept is not None and known == stamp:
            return kept
        descriptor = self._fetch(Keep(instance, name, stamp.magic, placed.nbytes, list(stamp.parameters)), offer)
        segment = Segment.open(descriptor, layout, writable=owner == actor)
        segment.close_descriptor()
        replica = self._routing.instances[actor].index(instance)
        made = Kept(segment.words, segment.bytes, segment.placed, replica)
        self._kept[offer] = stamp, made
        return made

    def listen(self, instance: str, address: str, replica: int | None = None) -> socket.socket:
        """The instance's socket at this address, or that of another replica. Raises StartError, and GraphError where
        there is no such replica.
        """
        if replica is not None:
            instance = self._replica(instance, replica)
        asked = read_address(address)
        if isinstance(asked, TcpAddress):
            asked = numeric(asked)
        text = str(asked)
        listener = socket.socket(fileno=self._fetch(Listen(instance, text), SocketOffer(instance, text)))
        listener.setblocking(False)
        return keep_from_children(listener)

    def _replica(self, instance: str, number: int) -> str:
        instances = self._routing.instances[self._routing.actor_of[instance]]
        if not 0 <= number < len(instances):
            raise GraphError(
                f"{instance} asked for the socket of replica {number!r}; there are {len(instances)}, from 0"
            )
        return instances[number]

    def _fetch(self, ask: Ask, offer: KeptOffer | SocketOffer) -> int:
        try:
            self._ask(ask)
            return self._arrived.pop(offer)
        finally:
            self._close(offer)

    def _close(self, offer: KeptOffer | SocketOffer) -> None:
        """Of one that nobody has taken, since Ctrl-C came between."""
        if (descriptor := self._arrived.pop(offer, None)) is not None:
            os.close(descriptor)
