"""What takes part: a server that answers with TLS 1.3 on a port of 127.0.0.1."""

from __future__ import annotations

from types import TracebackType
from typing import ClassVar, Protocol, Self

from ....actors.ingress.certificates.certificate import Certificate


class Server(Protocol):
    """It runs while a `with` lasts. `serves_large`: whether it has the large answer, too; `pushes`: whether it sends
    small pieces by itself when it is told to.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    serves_large: ClassVar[bool]
    pushes: ClassVar[bool]
    port: int

    def __init__(self, certificate: Certificate, processes: int) -> None:
        """`processes` of it accept connections."""

    def all_pids(self) -> list[int]:
        """All of its processes."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
