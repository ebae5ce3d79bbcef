"""The text of an answer, out of the bytes of its tokens: whole characters alone, and nothing from a stop string on."""

from __future__ import annotations

from codecs import IncrementalDecoder, getincrementaldecoder
from collections.abc import Sequence


def text_decoder() -> IncrementalDecoder:
    """Decodes UTF-8 piece by piece, and holds back a character until its last byte is there.

    What can no longer become a character is U+FFFD, just as in `bytes.decode(errors="replace")` of the whole.
    """
    return getincrementaldecoder("utf-8")("replace")


class StopStrings:
    """Passes text on, and holds back the end of it that may still become a stop string.

    The stop string that is complete first ends the text, and of several that end with the same character the longest;
    so the result does not depend on the pieces. The stop string itself is left out. Empty ones are disregarded.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._matches = [_Match(stop) for stop in stops if stop]
        self._held = ""

    def push(self, text: str) -> tuple[str, bool]:
        """(What can go out, whether the text has ended). Nothing may be pushed after its end."""
        if not self._matches:
            return text, False
        held = self._held + text
        for position, character in enumerate(text, len(self._held) + 1):
            found = max(match.feed(character) for match in self._matches)
            if found:
                self._held = ""
                return held[: position - found], True
        safe = len(held) - max(match.length for match in self._matches)
        self._held = held[safe:]
        return held[:safe], False

    def finish(self) -> str:
        """What was held back, now that no more text comes."""
        rest, self._held = self._held, ""
        return rest


class _Match:
    """How far the text's end agrees with one stop string's beginning (Knuth, Morris and Pratt).

    The work for a character is constant on average: stop strings are the client's choice, and some take the longest.
    """

    def __init__(self, stop: str) -> None:
        self.length = 0
        self._stop = stop
        # By length of agreement: the next shorter agreement of the same end.
        self._shorter = [0, 0]
        for character in stop[1:]:
            self._shorter.append(self._extended(self._shorter[-1], character))

    def feed(self, character: str) -> int:
        """Goes on by a character; the stop string's length if that completes it, else 0."""
        self.length = self._extended(self.length, character)
        return self.length if self.length == len(self._stop) else 0

    def _extended(self, length: int, character: str) -> int:
        while length and self._stop[length] != character:
            length = self._shorter[length]
        return length + (self._stop[length] == character)
