"""Tells the mere pieces of one choice's text: nearly all that ever comes of an answer."""

from __future__ import annotations

from collections.abc import Sequence
from json.encoder import encode_basestring

from ...completion import Item
from ..requests.streamed_body import Body
from .choices import Hearer
from .chunks import OTHER_LINE_ENDS


class Pieces:
    """Hears what comes of a choice, and tells it by a body, as events: what is `around` the text (`Chunks.around`) was
    made once. What comes together leaves together. All that is no mere piece of text is for `others`.

    `is_silent`: whether nothing was told since somebody has set this.
    """

    __slots__ = ("_after", "_before", "_body", "_head", "_others", "is_silent")

    def __init__(self, body: Body, around: tuple[str, str, str], others: Hearer) -> None:
        self.is_silent = False
        self._body = body
        self._head, self._before, self._after = around
        self._others = others

    def came(self, items: Sequence[Item], is_over: bool) -> None:
        events = ""
        for item in items:
            if type(item) is not dict or len(item) != 2 or "tokens" not in item:
                break
            text = item.get("text")
            if type(text) is not str or not text:
                break
            encoded = encode_basestring(text)
            if not encoded.isascii():
                encoded = encoded.translate(OTHER_LINE_ENDS)
            events += f"{self._head}{self._before}{encoded}{self._after}"
        else:
            if not is_over:
                self._body.write(events.encode("utf-8", "backslashreplace"))
                self.is_silent = False
                return
        self._others.came(items, is_over)
