"""Who makes the tokens of the peers, and how a server of theirs finds it: the parent's side of both."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from time import sleep
from typing import Any, ClassVar, Protocol

from ...harness.line import Line
from ...harness.party import Party, answered, order
from .server import Pids, Steps

_LOOK_EVERY_S = 0.02

# Raises BenchError for a server that will not come.
Check = Callable[[], None]


class TokenSource(Protocol):
    """Of one server. Its processes run `target`, connect to the socket at `path`, and find in `BATCHES` how many
    batches their streams are in.
    """

    target: ClassVar[str]

    def __init__(self, path: Path, title: str, batches: int) -> None: ...

    def await_connected(self, processes: int, check: Check) -> None:
        """Until so many processes of the server have connected."""

    def pids(self) -> Pids:
        """Processes of its own."""

    def steps(self, count: int, pace: float) -> Steps:
        """Makes so many steps for each batch, so many a second."""

    def close(self) -> None:
        """Its end is that of the processes that serve, too."""


class Tickers:
    """Inside: each process that serves has a ticker; they begin at the same time."""

    target: ClassVar[str] = f"{__package__}.ticker_application:application"

    def __init__(self, path: Path, title: str, batches: int) -> None:  # noqa: ARG002  a ticker reads `BATCHES`
        self._title = title
        self._lines: list[Line] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._listener.settimeout(_LOOK_EVERY_S)

    def await_connected(self, processes: int, check: Check) -> None:
        while len(self._lines) < processes:
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                check()
                continue
            connection.setblocking(True)
            self._lines.append(Line(connection))

    def pids(self) -> Pids:
        return {}

    def steps(self, count: int, pace: float) -> Steps:
        for each in self._lines:
            order(each, self._title, "steps", count, pace)
        return together([answered(each, self._title, "steps") for each in self._lines])

    def close(self) -> None:
        self._listener.close()
        for each in self._lines:
            each.close()


class SourceApart:
    """A process of its own, as ours has."""

    target: ClassVar[str] = f"{__package__}.fed_application:application"

    def __init__(self, path: Path, title: str, batches: int) -> None:  # noqa: ARG002  its process says what it fails at
        self._party = Party("ways.served_streams.source_process:Source", path=str(path), batches=batches)
        self._party.ask("listen")

    def await_connected(self, processes: int, check: Check) -> None:
        while self._party.ask("connected") < processes:
            check()
            sleep(_LOOK_EVERY_S)

    def pids(self) -> Pids:
        return {"source": [self._party.pid]}

    def steps(self, count: int, pace: float) -> Steps:
        return together([self._party.ask("steps", count, pace)])

    def close(self) -> None:
        self._party.close(now=True)


def together(made: list[dict[str, Any]]) -> Steps:
    """Of all who made them."""
    missed = sum(missed for each in made for _, missed in each["missed"])
    return Steps(min(each["began_ns"] for each in made), max(each["ended_ns"] for each in made), missed)
