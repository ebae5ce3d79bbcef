"""How much lanes for calls hold, and the numbers that have a meaning on both of their sides."""

from __future__ import annotations

from ...shm.lane import STREAM_SLOTS

# Endpoints from this number on are clients, those below workers.
FIRST_CLIENT = 1 << 16
REPLY_CAPACITY = 256
# Half of a reply lane is kept for single answers, so this many calls always find room for theirs; each has its slot.
MOST_CALLS = min(REPLY_CAPACITY // 2, STREAM_SLOTS)
# Beside these, for short questions that must not wait until long streams have ended, such as those of probes. They have
# no slot: only streams need one.
MOST_ASIDE = 8
# Room for the request and the cancel of each, and for calls that were given up and whose actor has not read yet.
CALL_CAPACITY = 3 * MOST_CALLS
# Cancelled requests that are remembered: for messages of theirs that are still on the road.
MOST_REMEMBERED = 1024
Key = tuple[int, int]  # of a request: see Header.key
# No request has this number. In its place it stands for all that a caller has made and may yet make.
EVERY_REQUEST = 0
