"""Cycles of edges that wait when they are full: their actors can wait for each other for ever. No I/O.

What counts is who waits for whom, so a cycle is one of actors: an actor that waits for room at any of its outputs takes
nothing from any of its inputs. Round a cycle of which each edge waits, everybody can wait for the next; one edge that
turns messages away, or drops some, opens it. Calls from inside (`self.call`) wait without holding an edge up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

from ..spec import EdgeSpec


def cycles(edges: Sequence[EdgeSpec]) -> Iterator[list[EdgeSpec]]:
    """One shortest cycle through each actor that is on any, each only once, as edges in the order of the way round."""
    known: set[str] = set()
    for actor in dict.fromkeys(edge.source.actor for edge in edges):
        way = _way_back(actor, edges) if actor not in known else None
        if way is not None:
            known.update(edge.source.actor for edge in way)
            yield way


def _way_back(actor: str, edges: Sequence[EdgeSpec]) -> list[EdgeSpec] | None:
    """The shortest way from an actor to itself."""
    came_by: dict[str, EdgeSpec] = {}
    waiting = deque([actor])
    while waiting and actor not in came_by:
        at = waiting.popleft()
        for edge in edges:
            if edge.source.actor == at and edge.target.actor not in came_by:
                came_by[edge.target.actor] = edge
                waiting.append(edge.target.actor)
    if actor not in came_by:
        return None
    way = [came_by[actor]]
    while way[-1].source.actor != actor:
        way.append(came_by[way[-1].source.actor])
    return way[::-1]


def deadlock(way: Sequence[EdgeSpec]) -> str:
    """What is wrong with a cycle of edges that block, and what helps."""
    listed = ", ".join(f"{edge.source} → {edge.target}" for edge in way)
    last = way[-1]
    if len(way) == 1:
        what, where = "this edge leads back to its own actor, which waits for itself when it is full", "it"
    else:
        what = "these edges lead in a circle, and when all are full their actors wait for each other"
        where = f"one of them, as {last.source} → {last.target},"
    return (
        f"{listed}: {what}, for ever; give {where} when_full='reject', 'drop_newest' or 'drop_oldest', or bounded=True "
        f"if never more than its capacity ({last.capacity}) go round at once"
    )
