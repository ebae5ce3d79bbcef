"""What a graph has not done yet, read from shared memory without asking its workers."""

from __future__ import annotations

from collections.abc import Collection

from .switchboard import Switchboard


def unfinished(board: Switchboard, gone: Collection[str] = ()) -> dict[str, int]:
    """How many messages wait for each actor or are being handled, where there are any. What the workers `gone` have
    left does not count: nobody waits for that.
    """
    found: dict[str, int] = {}
    for party in board.parties.values():
        for instance in party.instances if party.name not in gone else ():
            stats = board.actor_stats(party, instance)
            # A plain handler's message is in its lane until it has returned.
            if count := stats["waiting"] + stats["in_flight"]:
                actor = board.routing.actor_of[instance]
                found[actor] = found.get(actor, 0) + count
    return found
