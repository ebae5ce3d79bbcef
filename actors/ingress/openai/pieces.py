"""Tells the mere pieces of one choice's text: nearly all that ever comes of an answer."""

from __future__ import annotations

from collections.abc import Sequence
from json.encoder import encode_basestring

from ...completion import Item
from ..requests.streamed_body import Body
from .chunks import OTHER_LINE_ENDS


class Pieces:
    """Tells them by a body, as events that are `around` the text (`Chunks.around`), which was encoded once. What comes
    together leaves together. `is_silent`: whether nothing was told since somebody has set this.
    """

    __slots__ = ("_body", "_head", "_tail", "is_silent")

    def __init__(self, body: Body, around: tuple[str, str]) -> None:
        self.is_silent = False
        self._body = body
        self._head, self._tail = around

    def tell(self, items: Sequence[Item]) -> bool:
        """False, with nothing told, where one of the items is anything else than a text and its number of tokens."""
        events = ""
        for item in items:
            text = item.get("text")
            if not text or len(item) != 2 or "tokens" not in item:
                return False
            encoded = encode_basestring(text)
            if not encoded.isascii():
                encoded = encoded.translate(OTHER_LINE_ENDS)
            events += f"{self._head}{encoded}{self._tail}"
        self._body.write(events.encode("utf-8", "backslashreplace"))
        self.is_silent = False
        return True
