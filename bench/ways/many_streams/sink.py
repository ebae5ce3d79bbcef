"""The far ends of a reader's sockets: a process that empties them now and then, and counts what came by each."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self

from ...harness.party import Party
from .item import ITEM_NBYTES, mark_of

# A socket's buffer holds some 270 items. Who looks rarely is not woken by each write, which would cost the writer more.
_LOOK_EVERY_S = 0.25
_RECEIVE_NBYTES = 2048 * ITEM_NBYTES
_BACKLOG = 512


class Sink:
    """In the process: accepts sockets, each of which says its number first."""

    def __init__(self, path: str) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen(_BACKLOG)
        self._listener.setblocking(False)
        self._ends: list[_End] = []
        asyncio.get_running_loop().add_reader(self._listener, self._accept)
        self._look()

    def ready(self) -> None:
        """Answers once it listens."""

    def came(self) -> list[int]:
        """How many items have come, and how many bytes that were none of that socket's."""
        for each in self._ends:
            each.empty()
        return [sum(each.items for each in self._ends), sum(each.wrong_nbytes for each in self._ends)]

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                self._ends.append(_End(self._listener.accept()[0]))

    def _look(self) -> None:
        for each in self._ends:
            each.empty()
        asyncio.get_running_loop().call_later(_LOOK_EVERY_S, self._look)


class _End:
    """Of one socket."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._mark = mark_of(int(connection.recv(ITEM_NBYTES, socket.MSG_WAITALL))).encode()
        connection.setblocking(False)
        self._rest = b""
        self.items = 0
        self.wrong_nbytes = 0

    def empty(self) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionError):
            while received := self._connection.recv(_RECEIVE_NBYTES):
                data = self._rest + received
                whole = len(data) - len(data) % ITEM_NBYTES
                found = data.count(self._mark, 0, whole)
                self.items += found
                self.wrong_nbytes += whole - found * ITEM_NBYTES
                self._rest = data[whole:]


class SinkProcess:
    """The parent's side; readers connect to `path`."""

    def __init__(self) -> None:
        self._folder = TemporaryDirectory(prefix="slabwire-bench-")
        self.path = str(Path(self._folder.name) / "sink")
        self._party = Party("ways.many_streams.sink:Sink", path=self.path)

    def came(self) -> tuple[int, int]:
        """As Sink's."""
        items, wrong_nbytes = self._party.ask("came")
        return items, wrong_nbytes

    def __enter__(self) -> Self:
        try:
            self._party.ask("ready")
        except BaseException:
            self._close(now=True)
            raise
        # What a few thousand sockets cost it must not hold up those that are measured.
        os.setpriority(os.PRIO_PROCESS, self._party.pid, 10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close(now=kind is not None)

    def _close(self, *, now: bool) -> None:
        self._party.close(now=now)
        self._folder.cleanup()


def connected(path: str, number: int) -> socket.socket:
    """A reader's end, which says its number in as many bytes as an item has. It blocks where the sink is late."""
    end = socket.socket(socket.AF_UNIX)
    end.connect(path)
    end.sendall(f"{number:0{ITEM_NBYTES}d}".encode())
    return end
