"""The source of the peers' tokens, a process of its own as a model is: one message a step for each that serves."""

from __future__ import annotations

import asyncio
from time import monotonic_ns

from ..many_streams.item import mark_of, stamp_of
from ..many_streams.pacing import Pacing
from .source_messages import has_room, read_message, step_message


class _Served:
    """The streams of one process that serves, and the way to it."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.marks: dict[int, str] = {}

    def open(self, number: int, *, briefly: bool) -> None:
        """One that is wanted briefly has its token at once, and is over."""
        if briefly:
            self.writer.write(step_message([number], [stamp_of(monotonic_ns()) + mark_of(number)]))
        else:
            self.marks[number] = mark_of(number)


class Source(Pacing):
    """Makes a token for every open stream a step, whoever serves it."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path
        self._served: dict[_Served, None] = {}
        self._server: asyncio.Server | None = None

    async def listen(self) -> None:
        """Lets processes that serve connect."""
        self._server = await asyncio.start_unix_server(self._talk, self._path)

    def connected(self) -> int:
        """How many there are."""
        return len(self._served)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._served[served := _Served(writer)] = None
        try:
            while True:
                number, wish = await read_message(reader)
                if wish:
                    served.open(number, briefly=wish == 2)
                else:
                    served.marks.pop(number, None)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            return  # one of both processes ends
        finally:
            del self._served[served]
            writer.close()

    def _step(self, stamp: str) -> None:
        for each in self._served:
            if not each.marks:
                continue
            if has_room(each.writer):
                each.writer.write(step_message(list(each.marks), [stamp + mark for mark in each.marks.values()]))
            else:
                self.missed.update(each.marks.keys())

    def _open_streams(self) -> int:
        return sum(len(each.marks) for each in self._served)
