"""The near end of a way to carry many streams: started anew for each visit, and asked for steps."""

from __future__ import annotations

import os
import secrets
from types import TracebackType
from typing import Any, ClassVar, Protocol, Self

from ....runtime.graph.node import Node
from ....runtime.launch.graph import Graph
from ....runtime.launch.running import start
from ...harness.contestant import Seats
from ...harness.load import Load
from ...harness.party import Party
from ...harness.process import processes_of

# What the bench asks a source for needs places beside those of the streams.
OTHER_CALLS = 8


class Way(Protocol):
    """What takes part. `pauses`: one stream can be left unread."""

    name: ClassVar[str]
    title: ClassVar[str]
    pauses: ClassVar[bool]

    def __init__(self, load: Load) -> None: ...

    def source(self, what: str, *arguments: Any) -> Any:
        """What the source's method of that name gives (`Pacing`)."""

    def reader(self, what: str, *arguments: Any) -> Any:
        """What the reader's method of that name gives (`Reading`, and `begin`, `cancel`, `errors`)."""

    def pids(self) -> dict[str, int]:
        """All of its processes. "source" and "reader" are among them, unless they are one: "both"."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class PartyWay:
    """Two processes, or one for both, that are asked over socket pairs."""

    source_work: ClassVar[str]
    reader_work: ClassVar[str | None] = None
    pauses: ClassVar[bool] = True

    def __init__(self, load: Load) -> None:
        seats, address = Seats.choose(), f"slabwire-bench-{os.getpid()}-{secrets.token_hex(8)}"
        module = "ways.many_streams."
        self._source = Party(module + self.source_work, seats.caller, pace=load.pace, address=address)
        self._reader = self._source
        if self.reader_work is not None:
            self._reader = Party(module + self.reader_work, seats.echo, address=address)

    def source(self, what: str, *arguments: Any) -> Any:
        return self._source.ask(what, *arguments)

    def reader(self, what: str, *arguments: Any) -> Any:
        return self._reader.ask(what, *arguments)

    def pids(self) -> dict[str, int]:
        if self._reader is self._source:
            return {"both": self._source.pid}
        return {"source": self._source.pid, "reader": self._reader.pid}

    def __enter__(self) -> Self:
        try:
            for each in (self.source, self.reader):
                each("ready")
        except BaseException:
            self._close(now=True)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close(now=kind is not None)

    def _close(self, *, now: bool) -> None:
        for each in dict.fromkeys((self._reader, self._source)):
            each.close(now=now)


class GraphWay:
    """A running graph, whose actors `source` and `reader` are asked by calls."""

    pauses: ClassVar[bool] = True

    def __init__(self, graph: Graph, source: Node, reader: Node) -> None:
        graph.expose(source.steps, source.wait_open)
        graph.expose(reader.connect, reader.begin, reader.until, reader.wrote, reader.latencies_us)
        graph.expose(reader.cancel, reader.cancelled, reader.pause, reader.errors)
        self._running = start(graph.validate())
        try:
            self._client = self._running.client
        except BaseException:
            self._running.kill()
            raise

    def source(self, what: str, *arguments: Any) -> Any:
        return self._client.call(f"source.{what}", *arguments, timeout_s=None)

    def reader(self, what: str, *arguments: Any) -> Any:
        return self._client.call(f"reader.{what}", *arguments, timeout_s=None)

    def pids(self) -> dict[str, int]:
        return processes_of(self._running)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._running.stop()
        else:
            self._running.kill()
