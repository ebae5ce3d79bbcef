"""What an ingress counts of its connections: who accepted them, and what became of their handshakes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from ..tls.outcome import FAILURES, GROUPS, KINDS, REFUSALS, SUITES, VERSIONS, Agreed, Outcome, failure_of
from .sampling import Sampling
from .sheet import OTHER, Sheet

logger = logging.getLogger("slabwire")

# An ECDSA handshake takes a millisecond of CPU; the rest is the way to the client and back.
_HANDSHAKE_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


# What becomes of new certificates.
SWAPS = ("taken", "refused")
# No trouble: load balancers look so whether somebody listens, and we break off what we have no room for.
_UNSAID = ("left", "cut")


class Connections:
    """Declares on a sheet what it counts. `clock` gives seconds, for how often a line is logged."""

    def __init__(self, sheet: Sheet, clock: Callable[[], float] = time.monotonic) -> None:
        self._accepted = sheet.counter(
            "slabwire_connections_accepted", "Connections that a replica has accepted.", by_replica=True
        )
        self._open = sheet.gauge("slabwire_connections", "Open connections, by replica.", by_replica=True)
        self.most = sheet.gauge("slabwire_connections_most", "How many a replica keeps at most.", by_replica=True)
        self._took = sheet.histogram(
            "slabwire_tls_handshake_seconds", "From a client's first byte to the end.", _HANDSHAKE_S, {"kind": KINDS}
        )
        self._versions = sheet.counter(
            "slabwire_tls_versions", "Handshakes that were done, by version.", {"version": (*VERSIONS, OTHER)}
        )
        self._ciphers = sheet.counter(
            "slabwire_tls_ciphers", "Handshakes that were done, by cipher suite.", {"cipher": (*SUITES, OTHER)}
        )
        self._groups = sheet.counter(
            "slabwire_tls_groups",
            "Handshakes that were done, by group of the key exchange.",
            {"group": (*GROUPS, OTHER)},
        )
        self._failed = sheet.counter(
            "slabwire_tls_handshakes_failed", "Handshakes that came to nothing.", {"reason": FAILURES}
        )
        self._refused = sheet.counter(
            "slabwire_tls_resumptions_refused", "Tickets that were not taken.", {"reason": (*REFUSALS, OTHER)}
        )
        self._swaps = sheet.counter(
            "slabwire_tls_certificate_swaps", "New certificates, by what processes made of them.", {"result": SWAPS}
        )
        self._lines = Sampling(clock)

    def accepted(self) -> None:
        """One was taken from the kernel."""
        self._accepted.inc()

    def are_open(self, number: int) -> None:
        """So many are, now."""
        self._open.set(number)

    def resumption_refused(self, reason: str) -> None:
        """A ticket was not taken; `reason` is one of `REFUSALS`."""
        self._refused.inc(reason)

    def certificates_came(self, taken: bool) -> None:
        """New certificates lay ready, and were taken or not."""
        self._swaps.inc(SWAPS[not taken])

    def shook_hands(self, outcome: Outcome) -> None:
        """What became of a handshake; a line of the log tells of it, unless there were many in this second."""
        if isinstance(outcome, Agreed):
            self._agreed(outcome)
            return
        reason = failure_of(outcome)
        self._failed.inc(reason)
        if reason not in _UNSAID and (left_out := self._lines.troubled()) is not None:
            logger.info("handshake failed reason=%s error=%r%s", reason, str(outcome), left_out)

    def _agreed(self, agreed: Agreed) -> None:
        kind = KINDS[agreed.is_resumed]
        self._took.observe(agreed.took_s, kind)
        self._versions.inc(agreed.version)
        self._ciphers.inc(agreed.cipher)
        self._groups.inc(agreed.group)
        if (left_out := self._lines.well()) is not None:
            facts = agreed.version, agreed.cipher, agreed.group, agreed.took_s
            logger.info("handshake kind=%s version=%s cipher=%s group=%s seconds=%.4f%s", kind, *facts, left_out)
