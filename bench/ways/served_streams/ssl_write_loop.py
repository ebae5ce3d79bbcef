"""The floor: one process that has nothing to do but to write each token by libssl, from Python. No server that does so
can take less.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

from ....actors.ingress.certificates.certificate import Certificate
from ...harness.load import Load
from ...harness.party import Party
from ..many_streams.pacing import batches_of
from .server import Pids, Steps
from .token_source import together


class SslWriteLoop:
    """One process, however many the others have."""

    name = "ssl_write"
    title = "SSL_write in a loop, source inside"
    answers_briefly = False

    def __init__(self, load: Load, certificate: Certificate, processes: int) -> None:
        del processes
        self._pace = load.pace
        chain, key = str(certificate.chain), str(certificate.key)
        batches = batches_of(load.streams)
        self._party = Party("ways.served_streams.ssl_writes:SslWrites", chain=chain, key=key, batches=batches)
        try:
            self.port: int = self._party.ask("listen")
        except BaseException:
            self._party.close(now=True)
            raise

    def pids(self) -> Pids:
        return {"serving": [self._party.pid]}

    def steps(self, count: int, pace: float | None = None) -> Steps:
        return together([self._party.ask("steps", count, pace or self._pace)])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._party.close(now=True)
