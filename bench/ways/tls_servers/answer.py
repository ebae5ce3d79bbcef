"""What every server is asked for, and the bytes that it answers with."""

from __future__ import annotations

# The probe of an ingress that asks nobody else: its whole way through HTTP, and no actor behind it.
SMALL_PATH, SMALL = "/livez", b'{"status":"live"}'
SMALL_TYPE = "application/json"
LARGE_PATH, LARGE_NBYTES = "/large", 32 << 20
# What is handed over to a transport, or to a server of other people, at a time.
PIECE = bytes(1 << 16)
# As long as a token of a streamed chat answer.
PUSHED = bytes(208)
