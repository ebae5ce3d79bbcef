"""A process on the same host as a graph: lanes to and from its actors, and a pool of its own."""

from __future__ import annotations

import socket

from ...shm.consumer import Consumer
from ...shm.producer import Producer
from ..control.channel import BellOffer, EverythingMine, LaneOffer, News, Offer, Shrunk
from ..control.verbs import Hello
from ..dataplane.caller import Caller
from ..dataplane.descriptor_channel import Channel, Link, close_all
from ..dataplane.endpoint import Endpoint
from ..dataplane.peers import CLIENT_SLABS_NBYTES
from ..errors import Disconnected, SlabwireError
from ..graph.compiled import Routing
from ..host.forks import keep_from_children
from ..host.ownership import require_own_peer
from ..host.run_directory import own_socket
from ..spec import graph_from_plain
from . import in_process_graphs
from .control import ANSWER_WITHIN_S, Control


class _Tie:
    """The connection that a client is known by. Its end means that all that was lent to the client has come back, so it
    is kept by the client and by every array that was received.
    """

    __slots__ = ("_channel",)

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def __del__(self) -> None:
        self._channel.close()


class LocalConnection:
    """Built from a graph's name. One thread at a time; leases may end in any thread, at any time, also after `close`.
    `calls`: how many may be in flight, if not as many as the graph says of clients.

    Raises Disconnected if no such graph runs.
    """

    def __init__(
        self,
        name: str,
        *,
        may_spin: bool,
        answer_within_s: float = ANSWER_WITHIN_S,
        drives: bool = False,
        calls: int = 0,
    ) -> None:
        self.here = in_process_graphs.find(
            name
        )  # a graph of this process, which `drives` says is driven while one waits
        if self.here is None:
            self.routing, self.link = self._dialled(name, answer_within_s)
        else:
            if self.here.is_driven and not drives:
                raise Disconnected(
                    f"graph {name!r} runs in this process and works only while a client waits that is not of asyncio; "
                    "run it by `async with`, or in processes"
                )
            self.routing, self.link = self.here.routing, self.here.link(self)
        may_spin = may_spin and self.here is None
        self._tie: _Tie | None = _Tie(self.link.channel)
        self.endpoint = Endpoint(
            0, self.link.ask, self._lane_opened, may_spin=may_spin, limit_nbytes=CLIENT_SLABS_NBYTES
        )
        self.caller = Caller(self.endpoint, self.routing, calls or self.routing.spec.client_calls)
        if self.here is not None:
            self.caller.explain = self.here.explain
        try:
            self.link.ask(EverythingMine(calls))
            self.endpoint.recover()
        except SlabwireError as error:
            self.close()
            if not isinstance(error, Disconnected):
                raise
        if self.endpoint.bell is None or self.endpoint.wait is None:
            self.close()
            raise Disconnected(f"graph {name!r} is ending and takes no more clients")
        self.bell, self.wait = self.endpoint.bell, self.endpoint.wait

    def _dialled(self, name: str, answer_within_s: float) -> tuple[Routing, Link]:
        with Control(name, answer_within_s) as control:
            hello = control.request(Hello())
        connection = keep_from_children(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        try:
            connection.connect(str(own_socket(name, "local")))
            require_own_peer(connection, f"graph {name!r}")
        except (OSError, SlabwireError) as error:
            connection.close()
            if isinstance(error, SlabwireError):
                raise
            raise Disconnected(f"graph {name!r} takes no more clients ({error.strerror})") from None
        return Routing(graph_from_plain(hello["spec"])), Link(Channel(connection), self)

    @property
    def ports(self) -> list[str]:
        """The exposed ports, as `actor.port`."""
        spec = self.routing.spec
        return [str(route.entry) for route in spec.routes[: spec.exposed]]

    def told(self, news: News) -> None:
        if isinstance(news, Shrunk):
            self.endpoint.forget_slabs(news.slabs)

    def offered(self, offers: list[Offer], descriptors: list[int]) -> None:
        if self.endpoint.bell is None and isinstance(own := offers[0], BellOffer):
            self.endpoint.identifier = own.endpoint  # the first bell that a client is offered is its own
        for _, unwanted in self.endpoint.take_offers(offers, descriptors):
            close_all(unwanted)

    def _lane_opened(self, offer: LaneOffer, end: Producer | Consumer) -> None:
        if isinstance(end, Consumer):
            end.keeps = self._tie
        self.caller.lane_opened(offer, end)

    def take_in(self) -> bool:
        """Takes in answers and news; True if answers came. Raises Disconnected when the graph has ended."""
        try:
            self.link.pump()
        except Disconnected:
            self.caller.pump()  # what came before the end still counts
            gone = Disconnected(f"graph {self.routing.spec.name!r} has ended; calls that were in flight are lost")
            self.caller.gone = gone
            self.caller.fail_all(gone)
            raise gone from None
        return self.caller.pump()

    def close(self) -> None:
        self.caller.close()
        self.endpoint.close()
        self._tie = None
        for each in ("bell", "wait"):  # whatever keeps this object keeps no mapping
            vars(self).pop(each, None)
        if self.here is not None:
            self.here.part()
