"""What takes part: a server of OpenAI's interface, whose answers get a token each a step."""

from __future__ import annotations

from types import TracebackType
from typing import ClassVar, NamedTuple, Protocol, Self

from ....actors.ingress.certificates.certificate import Certificate
from ...harness.load import Load

# What clients ask for.
MODEL, PATH = "model", "/v1/chat/completions"
# Connections and requests that a server has room for beside those of the streams.
SPARE = 64


# Of the processes of a server, by what they do.
Pids = dict[str, list[int]]


class Steps(NamedTuple):
    """So many steps, made for all open streams, batch after batch: when the first began and when the next one would, on
    the clock of `monotonic_ns`; and the tokens that streams without room went without.
    """

    began_ns: int
    ended_ns: int
    missed: int


class Server(Protocol):
    """It runs while a `with` lasts. The first message of a request says what it asks for, as `Asked` has it."""

    name: ClassVar[str]
    title: ClassVar[str]
    # Whether it has answers of one token, as `Asked` says.
    answers_briefly: ClassVar[bool]

    def __init__(self, load: Load, certificate: Certificate, processes: int) -> None:
        """`processes` of it accept connections."""

    @property
    def port(self) -> int:
        """Where it listens on 127.0.0.1."""

    def pids(self) -> Pids:
        """All of its processes by what they do: "serving", "source" where that is another one, and the rest."""

    def steps(self, count: int, pace: float | None = None) -> Steps:
        """Makes so many steps, `pace` a second; without it as `load` says."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
