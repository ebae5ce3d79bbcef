"""Tells one answer as events, whichever way they go."""

from __future__ import annotations

import time
from collections.abc import Sequence

from ...completion import Finished, Item
from ..requests.metrics import Tally
from ..requests.streamed_body import Body
from .chat_request import ChatRequest
from .choices import Choices
from .chunks import DONE, Chunks, usage_of


class Narrator:
    """Of the choices of one request. `is_silent`: whether nothing was told since somebody has set this."""

    __slots__ = ("_body", "_choices", "_chunks", "_tally", "_tells_usage", "is_silent")

    def __init__(self, asked: ChatRequest, choices: Choices, tally: Tally) -> None:
        self.is_silent = False
        self._chunks = Chunks(asked.model, int(time.time()), usage=asked.include_usage)
        self._tells_usage = asked.include_usage
        self._choices = choices
        self._tally = tally
        self._body: Body

    def opening(self) -> bytes:
        """The first events, one for each choice."""
        return b"".join(self._chunks.role(choice) for choice in range(self._tally.choices))

    def begin(self, body: Body) -> None:
        """From now on `take` tells by this body; a slow reader of it holds up the choices."""
        self._body = body
        body.on_room = self._choices.resume

    def take(self, choice: int, items: Sequence[Item]) -> None:
        """Tells what has come of a choice."""
        if self._tally.first is None:
            self._tally.note(items)
        chunks, body = self._chunks, self._body
        body.write(b"".join([chunks.item(choice, each) for each in items]))
        self.is_silent = False
        if body.is_full:
            self._choices.pause()

    def closing(self, endings: list[Finished]) -> bytes:
        """The last events."""
        self._tally.usage = usage_of(endings)
        return (self._chunks.usage(self._tally.usage) if self._tells_usage else b"") + DONE
