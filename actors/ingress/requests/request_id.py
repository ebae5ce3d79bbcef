"""What names a request in responses and logs: `x-request-id`, and the trace of W3C Trace Context."""

from __future__ import annotations

import re
from collections.abc import Mapping
from random import getrandbits
from typing import NamedTuple

_SAFE = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
# version, trace id, span id, flags; W3C Trace Context, section 3.2. Of later versions the same four are read.
_TRACEPARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})(-.*)?")


class Names(NamedTuple):
    """What a request is called in logs. `trace` is the id of its client's trace, "" without one."""

    request: str
    trace: str


def names_of(headers: Mapping[bytes, bytes]) -> tuple[Names, list[tuple[bytes, bytes]]]:
    """What a request is called, and the headers by which its answer says so.

    A client's `x-request-id` is taken where it is of 1 to 128 safe characters, else one is made; its `traceparent`
    comes back with a span of this server.
    """
    given = headers.get(b"x-request-id", b"")
    # Nobody gains by guessing one, so it need not come from the kernel.
    request = given if _SAFE.fullmatch(given) else b"req_%032x" % getrandbits(128)
    told = [(b"x-request-id", request)]
    found = _TRACEPARENT.fullmatch(headers[b"traceparent"]) if b"traceparent" in headers else None
    if found is None:
        return Names(request.decode(), ""), told
    told.append((b"traceparent", b"00-%b-%016x-%b" % (found[1], getrandbits(64) or 1, found[2])))
    return Names(request.decode(), found[1].decode()), told
