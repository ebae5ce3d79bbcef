"""The application of the peers whose source is another process: one task reads what it sends, and hands each token to
its stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from json.encoder import encode_basestring

from .application import application_of
from .asked import Asked
from .narration import Narration
from .source_messages import close_message, has_room, open_message, read_message

# Of one stream: whoever reads more slowly than that is left.
_MOST_WAITING = 64


class _Arrivals:
    """The texts of one stream that have come and were not taken. A queue for one reader that takes all at a time."""

    __slots__ = ("_texts", "_waiting", "is_full")

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._waiting: asyncio.Future[None] | None = None
        self.is_full = False

    def put(self, text: str) -> None:
        if len(self._texts) >= _MOST_WAITING:
            self.is_full = True
            return
        self._texts.append(text)
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def take(self) -> list[str]:
        """Waits for one at least."""
        if not self._texts:
            self._waiting = asyncio.get_running_loop().create_future()
            await self._waiting
        texts, self._texts = self._texts, []
        return texts


class Feed:
    """The end of the line to the source in one process."""

    def __init__(self) -> None:
        self._open: dict[int, _Arrivals] = {}
        self._writer: asyncio.StreamWriter | None = None

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Hands over what comes, until the source has ended."""
        self._writer, streams = writer, self._open
        while True:
            numbers, texts = await read_message(reader)
            for number, text in zip(numbers, texts, strict=True):
                if (stream := streams.get(number)) is not None:
                    stream.put(text)

    async def events(self, asked: Asked) -> AsyncIterator[str]:
        """Those of one answer."""
        writer = self._writer
        if writer is None or not has_room(writer):
            raise RuntimeError("the source does not read what it is sent")
        narration, arrivals = Narration(), _Arrivals()
        before, after = narration.before, narration.after
        self._open[asked.number] = arrivals
        try:
            writer.write(open_message(asked.number, briefly=asked.briefly))
            yield narration.opening
            while not arrivals.is_full:
                texts = await arrivals.take()
                yield "".join([before + encode_basestring(each) + after for each in texts])
                if asked.briefly:
                    yield narration.end
                    return
        finally:
            del self._open[asked.number]
            if not (asked.briefly or writer.is_closing()):
                writer.write(close_message(asked.number))


_feed = Feed()
application = application_of(_feed.events, _feed.talk)
