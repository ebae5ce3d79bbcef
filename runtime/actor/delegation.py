"""A request that its handler hands on: what the handler returns, and the report that it may get at the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..message.delegated import ReportTo

# Of the answers that are kept for a report, where the delegator does not say how much.
REPORT_NBYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Delegation:
    """Made by `Actor.delegate`, for the handler to return. `report` says who wants to know what comes of it."""

    target: str
    route: int
    fields: dict[str, Any]
    report: ReportTo | None = None


@dataclass(frozen=True)
class Report:
    """What became of a delegated request: `value` is its answer, or `items` are those of its stream.

    `kept` is False, and neither is there, where they were larger than asked for, or a crash on the way has lost them.
    `error` is the code of the error that the caller got, "cancelled" where it gave up; then neither is there as well.
    """

    value: Any = None
    items: list[Any] | None = None
    kept: bool = True
    error: str | None = None
