"""Bytes of tokens to text, as they come: a character may be spread over several tokens."""

from __future__ import annotations

from codecs import getincrementaldecoder

_Utf8 = getincrementaldecoder("utf-8")


class TextStream:
    """Decodes UTF-8 piece by piece and holds back a character until its last byte is there.

    What can no longer become a character is U+FFFD, just as in `bytes.decode(errors="replace")` of the whole.
    """

    def __init__(self) -> None:
        self._decoder = _Utf8("replace")

    def push(self, piece: bytes) -> str:
        """The characters that these bytes complete; often none."""
        return self._decoder.decode(piece)

    def finish(self) -> str:
        """What is held back: U+FFFD for a character that was cut off, else nothing."""
        return self._decoder.decode(b"", final=True)
