"""What a graph has not done yet, read from shared memory without asking its workers: what a drain waits for."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from ...shm.inflight import lanes_kept

if TYPE_CHECKING:
    from .peers import Board, Peer


def is_idle(board: Board, gone: Collection[str] = ()) -> bool:
    """Whether nothing waits and nothing is being handled: a drained graph. What `gone` workers have left is no matter.

    What moves on while it is looked at is found by the count of what was sent.
    """
    before = _published(board)
    return not (unfinished(board, gone) or _is_any_busy(board, gone)) and _published(board) == before


def unfinished(board: Board, gone: Collection[str] = ()) -> dict[str, int]:
    """How many inputs wait for each actor or are being handled, where there are any. What the workers `gone` have left
    does not count: nobody waits for that.
    """
    found: dict[str, int] = {}
    for peer, instance in _instances(board, gone):
        # A plain handler's input is in its lane until the handler has returned.
        if count := _waiting(board, instance) + len(lanes_kept(peer.tables[instance])):
            actor = board.routing.actor_of[instance]
            found[actor] = found.get(actor, 0) + count
    return found


def _instances(board: Board, gone: Collection[str]) -> Iterator[tuple[Peer, str]]:
    for peer in board.peers.values():
        if peer.name not in gone:
            yield from ((peer, each) for each in peer.instances)


def _published(board: Board) -> int:
    return sum(each.published() for each in board.lines.values())


def _waiting(board: Board, instance: str) -> int:
    return sum(e.waiting() for e in board.lines.values() if e.target == instance and e.purpose != "reply")


def _is_any_busy(board: Board, gone: Collection[str]) -> bool:
    """Whether a handler runs, outside of any input perhaps, or messages wait for room, perhaps they alone."""
    for peer, instance in _instances(board, gone):
        stats = board.actor_stats(peer, instance)
        reaches_all = not any(e.source == instance and e.consumer.name in gone for e in board.lines.values())
        if stats["busy_since_ns"] or (stats["outbox"] and reaches_all):
            return True
    return False
