"""The events of the peers' answers: OpenAI's chunks, with as many bytes as those of the ingress."""

from __future__ import annotations

from ....actors.ingress.openai.chunks import DONE, Chunks
from .server import MODEL

_TEXT = "TEXT"


class Narration:
    """Of one answer: what comes first, what stands around the text of each token as JSON has it, and the end."""

    __slots__ = ("after", "before", "end", "opening")

    def __init__(self) -> None:
        chunks = Chunks(MODEL, 1, usage=False)
        self.opening = chunks.role(0).decode()
        token = chunks.item(0, {"text": _TEXT, "tokens": 1}).decode()
        self.before, _, self.after = token.partition(f'"{_TEXT}"')
        ending = chunks.item(
            0, {"finish_reason": "length", "prompt_tokens": 1, "completion_tokens": 1, "cached_tokens": 0}
        )
        self.end = (ending + DONE).decode()
