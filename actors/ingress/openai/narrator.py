"""Tells one answer as events, whichever way they go."""

from __future__ import annotations

import time
from collections.abc import Sequence

from ...completion import Finished, Item
from ..requests.metrics import Tally
from ..requests.streamed_body import Body
from .chat_request import ChatRequest
from .choices import Choice, Choices, Hearer
from .chunks import DONE, Chunks, usage_of
from .pieces import Pieces


class Narrator:
    """Of the choices of one request."""

    __slots__ = ("_body", "_choices", "_chunks", "_is_silent", "_pieces", "_tally", "_tells_usage")

    def __init__(self, asked: ChatRequest, choices: Choices, tally: Tally) -> None:
        self._is_silent = False
        self._pieces: tuple[Pieces, ...] = ()  # of nearly all answers one, so this is no list, which takes more room
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
        body.on_full, body.on_room = self._choices.pause, self._choices.resume

    def take(self, choice: int, items: Sequence[Item]) -> None:
        """Tells what has come of a choice."""
        self._tally.note(items)
        body, chunks = self._body, self._chunks
        body.write(b"".join([chunks.item(choice, each) for each in items]))
        self._is_silent = False
        if body.is_full:  # it may have been before
            self._choices.pause()

    def pieces_of(self, choice: Choice) -> Hearer:
        """Tells mere pieces of a choice at a lower price, once something of it was told by `take`."""
        pieces = Pieces(self._body, self._chunks.around(choice.index), choice)
        self._pieces += (pieces,)
        return pieces

    @property
    def is_silent(self) -> bool:
        """Whether nothing was told since somebody has set this."""
        return self._is_silent and all(each.is_silent for each in self._pieces)

    @is_silent.setter
    def is_silent(self, is_silent: bool) -> None:
        self._is_silent = is_silent
        for each in self._pieces:
            each.is_silent = is_silent

    def closing(self, endings: list[Finished]) -> bytes:
        """The last events."""
        self._tally.usage = usage_of(endings)
        return (self._chunks.usage(self._tally.usage) if self._tells_usage else b"") + DONE
