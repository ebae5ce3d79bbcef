"""How much lanes for calls hold, and the numbers that mean the same to both of their ends."""

from __future__ import annotations

from ..spec import MOST_CALLS

# Endpoints from this number on are clients; endpoints below it are workers.
FIRST_CLIENT = 1 << 16
# Additional calls for short questions that must not wait until long streams have ended, for example those of probes.
# They have no slot, because only streams need one.
MOST_ASIDE = 8
# Cancelled requests that are remembered, because messages of theirs may still arrive.
MOST_REMEMBERED = MOST_CALLS
# Items of one stream that may be on the way to its reader, so that neither waits for the other at every item.
STREAM_WINDOW = 64
# Records of a lane for items of streams that callers send: whoever reads it takes all at once, and leaves none there.
ITEM_CAPACITY = 256
_MOST_ITEM_LEASES = 1 << 14
Key = tuple[int, int]  # of a request: see Header.key
# No request has this number. In a cancel it stands for all requests of a caller, also for later ones.
EVERY_REQUEST = 0


def slots_for(calls: int) -> int:
    """How many slots a caller of so many calls has. Each call has one of its own. There are a quarter more, so that the
    next free one is found within a few steps.
    """
    return calls + calls // 4


def reply_capacity(calls: int) -> int:
    """Records of a lane for answers. Half of it is kept for single answers, so those of all calls always find room."""
    return 2 * calls


def call_capacity(calls: int) -> int:
    """Records of a lane for calls: the request and the cancel of each call, and abandoned calls that the actor has not
    read yet.
    """
    return 3 * calls


def item_leases(calls: int, concurrency: int) -> int:
    """Loans of a lane for items, where the caller has so many calls and the actor handles so many inputs: so that the
    unread items of all streams find a row, and a handler that reads none holds up no other.
    """
    return max(2 * ITEM_CAPACITY, min(STREAM_WINDOW * min(calls, concurrency), _MOST_ITEM_LEASES))
