"""How many values a JSON text holds, told before it is parsed: each takes a hundred times as long as its bytes."""

from __future__ import annotations

from .refusals import Refusal

# Behind each value but the last of a list stands a comma, and an object or an array begins with a bracket.
_MARKS = (b",", b"[", b"{")
# In front of each of its strings, and behind it, a JSON text has a comma, a colon, or a bracket.
_STRINGS_A_VALUE = 2


class Values:
    """Counts the values of one text, which comes in parts. Of a text that is no JSON the count is good up to its fault.

    Works on whole parts at once: a loop over their bytes, or over their strings, would take longer than to parse them.
    """

    def __init__(self, most: int) -> None:
        self.count = 1
        self._most = most
        self._inside = 0  # 1 within a string
        self._escape = b""  # the first half of one that the parts cut

    def add(self, part: bytes) -> None:
        """Counts those of the next part. Raises Refusal where there are too many."""
        outside = self._outside(self._escape + part)
        self.count += sum(map(outside.count, _MARKS))
        self._check(self.count)

    def _check(self, count: int) -> None:
        if count > self._most:
            raise Refusal(
                f"The request's body holds more than {self._most} values (strings, numbers, arrays and objects), "
                "the most that this server takes; send fewer, or send them as text.",
                None,
                "too_many_values",
            )

    def _outside(self, text: bytes) -> bytes:
        """What of a text stands outside of strings."""
        self._escape = b"\\" if (len(text) - len(text.rstrip(b"\\"))) % 2 else b""
        text = text.removesuffix(self._escape)
        if b"\\" in text:
            text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
        quotes = text.count(b'"')
        self._check(quotes // 2 // _STRINGS_A_VALUE)
        pieces = text.split(b'"')
        outside = b"".join(pieces[self._inside :: 2])
        self._inside ^= quotes % 2
        return outside
