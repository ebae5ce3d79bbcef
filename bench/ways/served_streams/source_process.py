"""The source of the peers' tokens, a process of its own as a model is: one message for each that serves as a batch has
its step.
"""

from __future__ import annotations

import asyncio
from time import monotonic_ns

from ..many_streams.item import mark_of, stamp_of
from ..many_streams.pacing import BatchedPacing
from .source_messages import has_room, read_message, step_message


class _Served:
    """The streams of one process that serves, and the way to it."""

    def __init__(self, writer: asyncio.StreamWriter, batches: int) -> None:
        self.writer = writer
        self.marks: list[dict[int, str]] = [{} for _ in range(batches)]

    def open(self, number: int, *, briefly: bool) -> None:
        """One that is wanted briefly has its token at once, and is over."""
        if briefly:
            self.writer.write(step_message([number], [stamp_of(monotonic_ns()) + mark_of(number)]))
        else:
            self._marks_beside(number)[number] = mark_of(number)

    def close(self, number: int) -> None:
        """It may be closed already."""
        self._marks_beside(number).pop(number, None)

    def _marks_beside(self, number: int) -> dict[int, str]:
        """Of its batch."""
        return self.marks[number % len(self.marks)]


class Source(BatchedPacing):
    """Makes a token for every open stream a step, whoever serves it."""

    def __init__(self, path: str, batches: int) -> None:
        super().__init__(batches)
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
        self._served[served := _Served(writer, self._batches)] = None
        try:
            while True:
                number, wish = await read_message(reader)
                if wish:
                    served.open(number, briefly=wish == 2)
                else:
                    served.close(number)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            return  # one of both processes ends
        finally:
            del self._served[served]
            writer.close()

    def _step_batch(self, batch: int, stamp: str) -> None:
        for each in self._served:
            marks = each.marks[batch]
            if not marks:
                continue
            if has_room(each.writer):
                each.writer.write(step_message(list(marks), [stamp + mark for mark in marks.values()]))
            else:
                self.missed.update(marks.keys())
