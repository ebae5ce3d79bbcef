"""How much lanes for calls hold, and the numbers that mean the same to both of their ends."""

from __future__ import annotations

from ...shm.lane import STREAM_SLOTS

# Endpoints from this number on are clients; endpoints below it are workers.
FIRST_CLIENT = 1 << 16
REPLY_CAPACITY = 256
# Half of a reply lane is kept for single answers, so the answers of this many calls always find room. Each call has a
# slot of its own.
MOST_CALLS = min(REPLY_CAPACITY // 2, STREAM_SLOTS)
# Additional calls for short questions that must not wait until long streams have ended, for example those of probes.
# They have no slot, because only streams need one.
MOST_ASIDE = 8
# Room for the request and the cancel of each call, and for abandoned calls that the actor has not read yet.
CALL_CAPACITY = 3 * MOST_CALLS
# Cancelled requests that are remembered, because messages of theirs may still arrive.
MOST_REMEMBERED = 1024
Key = tuple[int, int]  # of a request: see Header.key
# No request has this number. In a cancel it stands for all requests of a caller, also for later ones.
EVERY_REQUEST = 0
