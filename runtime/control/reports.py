"""What a worker tells its supervisor."""

from __future__ import annotations

from typing import Any, NamedTuple

from .schema import Schema


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
