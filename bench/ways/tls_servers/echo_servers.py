"""The least that can answer, on our TLS and on asyncio's own."""

from __future__ import annotations

from types import TracebackType
from typing import ClassVar, Self

from ....actors.ingress.certificates.certificate import Certificate
from ...harness.party import Party


class EngineEcho:
    """Processes that share a port."""

    name: ClassVar[str] = "engine"
    title: ClassVar[str] = "Slabwire's TLS, bare"
    serves_large: ClassVar[bool] = True
    pushes: ClassVar[bool] = True
    _engine: ClassVar[str] = "libssl"

    def __init__(self, certificate: Certificate, processes: int) -> None:
        chain, key = str(certificate.chain), str(certificate.key)
        self._parties: list[Party] = []
        self.port = 0
        try:
            for _ in range(processes):
                self._parties.append(Party("ways.tls_servers.echo:Echo", engine=self._engine, chain=chain, key=key))
                self.port = self._parties[-1].ask("listen", self.port)
        except BaseException:
            self._close()
            raise

    def all_pids(self) -> list[int]:
        return [each.pid for each in self._parties]

    def push(self, count: int) -> None:
        """Sends so many small pieces, by all connections of the first process in turn."""
        self._parties[0].ask("push", count)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        for each in self._parties:
            each.close(now=True)  # whatever is still open


class StdlibEcho(EngineEcho):
    name = "stdlib"
    title = "asyncio's TLS, bare"
    _engine = "stdlib"
