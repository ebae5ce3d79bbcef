"""What a supervisor tells a worker to do."""

from __future__ import annotations

from typing import NamedTuple

from .schema import Schema


class Drain(NamedTuple):
    """The graph drains: refuse new calls of clients, and call `on_drain`."""


class Cut(NamedTuple):
    """The time to drain is over: end what is in flight with errors."""


class Retire(NamedTuple):
    """A successor is to take over: take nothing new, finish what has begun within so many seconds, report Drained."""

    within_s: float


class Stop(NamedTuple):
    """Leave after the work at hand, and run `on_stop`."""


class Seat(NamedTuple):
    """The threads of this worker, or of one beside it, were pinned anew."""

    cores: list[int]
    spin: bool


class TellHoldings(NamedTuple):
    """Say which blocks are out. The answer carries the token."""

    token: int


Order = Drain | Cut | Retire | Stop | Seat | TellHoldings
ORDERS: Schema[Order] = Schema(
    "order",
    {"drain": Drain, "cut": Cut, "retire": Retire, "stop": Stop, "seat": Seat, "tell_holdings": TellHoldings},
)
