"""Whether a graph has anything to do, as far as shared memory tells: what a drain waits for."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from ..shm.inflight import lanes_kept

if TYPE_CHECKING:
    from .party import Party
    from .switchboard import Switchboard


def is_idle(board: Switchboard, gone: Collection[str] = ()) -> bool:
    """Whether nothing waits and nothing is being handled: a drained graph. What `gone` workers have left is no matter.

    What moves on while it is looked at is found by the count of what was sent.
    """
    before = _published(board)
    return not any(work_left(board, gone).values()) and _published(board) == before


def work_left(board: Switchboard, gone: Collection[str] = ()) -> dict[str, int]:
    """How many inputs each actor instance has not finished: in its lanes, in flight, or with outputs that wait for
    room. Of workers that are `gone` for good nothing is awaited.
    """
    left: dict[str, int] = {}
    for party in (each for each in board.parties.values() if each.instances and each.name not in gone):
        for instance in party.instances:
            left[instance] = _waiting(board, instance) + _at_work(board, party, instance, gone)
    return left


def _published(board: Switchboard) -> int:
    return sum(each.published() for each in board.lines.values())


def _waiting(board: Switchboard, instance: str) -> int:
    return sum(e.waiting() for e in board.lines.values() if e.target == instance and e.purpose != "reply")


def _at_work(board: Switchboard, party: Party, instance: str, gone: Collection[str]) -> int:
    """Inputs in flight; 1 for a handler that runs outside of any, or for messages that wait for room alone."""
    stats = board.actor_stats(party, instance)
    reaches_all = not any(e.source == instance and e.consumer.name in gone for e in board.lines.values())
    is_busy = stats["busy_since_ns"] or (stats["outbox"] and reaches_all)
    return len(lanes_kept(party.tables[instance])) or int(bool(is_busy))
