"""What goes over the control line of a worker: orders of its supervisor, and reports of the worker."""

from __future__ import annotations

from typing import Any, NamedTuple

from .schema import Schema

# -- orders: of the supervisor -----------------------------------------------------------------------------------------


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


# -- reports: of the worker --------------------------------------------------------------------------------------------


class Ready(NamedTuple):
    """All `on_start` have ended."""


class Drained(NamedTuple):
    """To the order Retire: how many inputs were in flight then, and are now."""

    begun: int
    left: int


class Dead(NamedTuple):
    """A message was given up: a dead letter. `trace` is the trace id in hexadecimal."""

    actor: str
    reason: str
    request: int
    trace: str


class Holdings(NamedTuple):
    """To the order TellHoldings: which blocks are out."""

    token: int
    holdings: dict[str, Any]


class Corrupt(NamedTuple):
    """A client wrote what no client writes: turn it out."""

    client: int


class Failed(NamedTuple):
    """The process cannot go on. `detail` is the traceback, `code` that of an error of ours or empty."""

    error: str
    detail: str
    code: str


class Stopped(NamedTuple):
    """The last code has run. Only the end of the process is left."""


Report = Ready | Drained | Dead | Holdings | Corrupt | Failed | Stopped
REPORTS: Schema[Report] = Schema(
    "report",
    {
        "ready": Ready,
        "drained": Drained,
        "dead": Dead,
        "holdings": Holdings,
        "corrupt": Corrupt,
        "failed": Failed,
        "stopped": Stopped,
    },
)
