"""What goes over the descriptor channel of a worker or a local client: asks, offers with descriptors, and news.

An answer to an ask says only whether it was done: what was asked for comes before the answer, as offers. Each offer is
the label of the descriptors that come along with it. News are told unasked, and are about others.
"""

from __future__ import annotations

from typing import NamedTuple

from .schema import Schema

# -- asks: of a worker or a local client, to its supervisor ------------------------------------------------------------


class Start(NamedTuple):
    """What is this process to do? A worker's first ask. Brings its assignment."""


class EverythingMine(NamedTuple):
    """Offer me all that is mine: bells, lanes, slabs, tables. A client that has more `calls` in flight than the graph
    says of clients, the gateway, says so here; it may do that once, before anything is its own.
    """

    calls: int = 0


class Grow(NamedTuple):
    """I need one more slab of my own, of `blocks` blocks of `block_nbytes` each."""

    block_nbytes: int
    blocks: int


class Shrink(NamedTuple):
    """A slab of mine is idle: take it back."""

    slab: int


class View(NamedTuple):
    """Let me read a slab of somebody else. Brings nothing where the slab is gone."""

    slab: int


class OpenRoute(NamedTuple):
    """I am going to call the entry of this route: connect both ends."""

    route: int


class OpenRouteFor(NamedTuple):
    """I hand on a request of this endpoint to the entry of this route: connect both ends with the caller, for answers
    and cancels. Brings nothing where the caller is gone. Of a worker.
    """

    route: int
    endpoint: int


class Keep(NamedTuple):
    """An actor instance wants memory that all instances of its actor share, and that outlives their processes.

    `name` is "actor.name" where another actor keeps it. `magic` and `parameters` are those of its layout, which the
    actor alone knows, and `nbytes` is its size.
    """

    instance: str
    name: str
    magic: int
    nbytes: int
    parameters: list[int]


class Listen(NamedTuple):
    """A worker wants the socket at this address, which outlives it, of an actor instance: one of its own, or another
    replica of such a one.
    """

    instance: str
    address: str


Ask = Start | EverythingMine | Grow | Shrink | View | OpenRoute | OpenRouteFor | Keep | Listen
ASKS: Schema[Ask] = Schema(
    "ask",
    {
        "start": Start,
        "everything_mine": EverythingMine,
        "grow": Grow,
        "shrink": Shrink,
        "view": View,
        "open_route": OpenRoute,
        "open_route_for": OpenRouteFor,
        "keep": Keep,
        "listen": Listen,
    },
)


# -- offers: of the supervisor -----------------------------------------------------------------------------------------


class Assignment(NamedTuple):
    """What a worker is to do: the graph in sealed memory, the number of its endpoint, its actors and its cores."""

    endpoint: int
    instances: list[str]
    cores: list[int]
    threads: int
    spin: bool


class BellOffer(NamedTuple):
    """One's own bell, or a peer's: a segment and an eventfd. The first bell that a client is offered is its own."""

    endpoint: int


class LaneOffer(NamedTuple):
    """One end of a lane: its segment, and the segment of its returns.

    `role` is "producer" or "consumer", `purpose` is "edge", "call", "items" (of streams that callers send) or "reply".
    `source` and `target` are actor instances or, of a client, its name. `edge` is the edge's number in the spec, -1
    without one.
    """

    lane: int
    role: str
    peer: int
    purpose: str
    source: str
    target: str
    edge: int = -1


class SlabOffer(NamedTuple):
    """A slab of one's own, or of another owner (the number of its endpoint)."""

    slab: int
    owner: int


class TableOffer(NamedTuple):
    """The in-flight table of an actor instance."""

    instance: str


class StatsOffer(NamedTuple):
    """The counters of this worker."""


class RecorderOffer(NamedTuple):
    """The flight recorder of this worker."""


class KeptOffer(NamedTuple):
    """Kept memory that an actor instance has asked for."""

    instance: str
    name: str


class SocketOffer(NamedTuple):
    """A listening socket that an actor instance has asked for."""

    instance: str
    address: str


Offer = (
    Assignment | BellOffer | LaneOffer | SlabOffer | TableOffer | StatsOffer | RecorderOffer | KeptOffer | SocketOffer
)
OFFERS: Schema[Offer] = Schema(
    "offer",
    {
        "assignment": Assignment,
        "bell": BellOffer,
        "lane": LaneOffer,
        "slab": SlabOffer,
        "table": TableOffer,
        "stats": StatsOffer,
        "recorder": RecorderOffer,
        "kept": KeptOffer,
        "socket": SocketOffer,
    },
)


def descriptors_of(offer: Offer) -> int:
    """How many descriptors come along with an offer: a bell and a lane are pairs."""
    return 2 if isinstance(offer, BellOffer | LaneOffer) else 1


# -- news: of the supervisor, unasked ----------------------------------------------------------------------------------


class Cancelled(NamedTuple):
    """Requests whose callers are gone: end them. Each is (endpoint, request); request 0 means all of the endpoint.

    Told again when a worker asks for everything that is its own, for what its predecessor missed.
    """

    requests: list[tuple[int, int]]


class Left(NamedTuple):
    """A client is gone as a caller: drop its reply lanes. What its calls have set going goes on."""

    endpoint: int
    lanes: list[int]


class Gone(NamedTuple):
    """Nothing of a client is needed any more: drop its lanes and its slabs."""

    endpoint: int
    lanes: list[int]
    slabs: list[int]


class Shrunk(NamedTuple):
    """Slabs that their owner has given back: forget them."""

    slabs: list[int]


News = Cancelled | Left | Gone | Shrunk
NEWS: Schema[News] = Schema("news", {"cancelled": Cancelled, "left": Left, "gone": Gone, "shrunk": Shrunk})
