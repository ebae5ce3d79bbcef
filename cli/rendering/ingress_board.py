"""The lines of `slabwire top` about ingresses: one a replica. No I/O; time is given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .board import Cell, fitted_table
from .presentation import count_text, duration_text

# Each with what goes first where the screen is narrow: the highest.
_HEADS = {
    "ingress": 0,
    "connections": 1,
    "share": 9,
    "streams": 2,
    "requests": 3,
    "full": 7,
    "resumed": 8,
    "by ASGI": 4,
    "ticket key": 6,
    "certificate": 5,
}
_DAY_S = 86400.0
# A certificate that ends so soon should have been replaced.
_SOON_DAYS = 14


def ingress_table(told: Sequence[dict[str, Any]], now_unix_s: float, room: int) -> Any | None:
    """A `rich.table.Table`; None where there is nothing to show. `told` is what `Ingresses.look` gives."""
    rows = [
        _row(each["actor"], replica, now_unix_s, several=len(each["replicas"]) > 1)
        for each in told
        for replica in each["replicas"]
    ]
    if not rows:
        return None
    heads = list(_HEADS)
    return fitted_table(heads, [each != "ingress" for each in heads], list(_HEADS.values()), rows, room)


def silent_ingresses(told: Sequence[dict[str, Any]]) -> list[str]:
    """A line for each of which nothing is known."""
    return [f"{each['actor']}: {each['unknown']}" for each in told if each["unknown"]]


def _row(actor: str, replica: dict[str, Any], now_unix_s: float, *, several: bool) -> list[Cell]:
    name = f"{actor}[{replica['replica']}]" if several else actor
    serves = replica["stage"] == "serving"
    counts = (
        sum(replica["streams"].values()),
        replica["requests"],
        *(replica["handshaken"][kind] for kind in ("full", "resumed")),
    )
    return [
        (name, "bold") if serves else (f"{name} ({replica['stage']})", "yellow"),
        _count(replica["connections"]),
        (f"{replica['share']:.0%}", ""),
        *map(_count, counts),
        _count(replica["ways"]["asgi"], "yellow"),
        _age(replica["key_since"], now_unix_s),
        _days_left(replica["certificate_ends"], now_unix_s),
    ]


def _count(count: int, style: str = "") -> Cell:
    return count_text(count), style if count else "dim"


def _age(since: float | None, now_unix_s: float) -> Cell:
    return ("-", "dim") if since is None else (duration_text(max(0.0, now_unix_s - since)), "")


def _days_left(ends: float | None, now_unix_s: float) -> Cell:
    if ends is None:
        return "-", "dim"
    days = int((ends - now_unix_s) // _DAY_S)
    return f"{days}d", "bold red" if days < 0 else "yellow" if days < _SOON_DAYS else ""
