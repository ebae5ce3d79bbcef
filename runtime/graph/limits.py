"""The limits that a graph sets for calls, checked against each other and against what one process can hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..spec import MOST_CALLS, ActorSpec

# Inputs that one instance may have in flight: its in-flight table takes 384 bytes of shared memory for each.
MOST_CONCURRENCY = 1 << 16


def limit_problems(actors: Sequence[ActorSpec], client_calls: int) -> Iterator[str]:
    """What cannot be meant of these limits, a sentence each. What is no whole number above 0 is reported elsewhere."""
    if isinstance(client_calls, bool) or not isinstance(client_calls, int) or not 1 <= client_calls <= MOST_CALLS:
        yield f"client_calls={client_calls!r} of the graph must be a whole number from 1 to {MOST_CALLS}"
    for actor in actors:
        if isinstance(actor.concurrency, int) and actor.concurrency > MOST_CONCURRENCY:
            yield f"actor '{actor.name}': concurrency={actor.concurrency} is above {MOST_CONCURRENCY}; use replicas"
    for names, calls in _by_worker(actors).values():
        if calls > MOST_CALLS:
            yield (
                f"calls= of {names} are {calls} in all, and one worker may have {MOST_CALLS} in flight at most; "
                "give it fewer, or use replicas or another worker="
            )


def _by_worker(actors: Sequence[ActorSpec]) -> dict[str, tuple[str, int]]:
    """The actors of each worker, and how many calls they may have in flight together."""
    found: dict[str, tuple[str, int]] = {}
    for actor in actors:
        if isinstance(actor.calls, int):
            names, calls = found.get(str(actor.worker or actor.name), ("", 0))
            named = f"{names}, '{actor.name}'" if names else f"'{actor.name}'"
            found[str(actor.worker or actor.name)] = named, calls + actor.calls
    return found
