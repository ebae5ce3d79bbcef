"""What a request of the bench asks for: the answer of one stream, by its number."""

from __future__ import annotations

from typing import NamedTuple

_BRIEFLY = "briefly"


class Asked(NamedTuple):
    """`briefly`: for a token at once, and then the end; else for a token a step for as long as somebody reads."""

    number: int
    briefly: bool = False

    def content(self) -> str:
        """Of the message that asks for it."""
        return f"{self.number} {_BRIEFLY}" if self.briefly else str(self.number)


def asked_by(content: str) -> Asked:
    """Reads the content of a message."""
    number, _, rest = content.partition(" ")
    return Asked(int(number), rest == _BRIEFLY)
