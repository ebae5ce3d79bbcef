"""The actor that a model asks for what it has computed of a prompt before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.actor.actor import Actor
from ...runtime.errors import MessageError
from .prefixes import ROOT_KEY, Prefixes


class PrefixCache(Actor):
    """Pages of keys and values beside language models: `graph.add(PrefixCache, name="prefixes")`.

    Models name it (`prefixes="prefixes"` of `LanguageModel`), and alone ask it. It keeps at most `prefix_bytes` bytes.
    The pages are the models' own memory, held by leases: they count against a model's `memory_bytes`, and nothing of
    them is copied here. All are forgotten when its worker restarts.
    """

    def __init__(self, prefix_bytes: int = 256 << 20) -> None:
        self._prefixes: Prefixes[NDArray[Any]] = Prefixes(prefix_bytes)

    def prefix(self, tokens: NDArray[np.int32], root: bytes = ROOT_KEY) -> Iterator[dict[str, Any]]:
        """The pages of the longest known beginning of a prompt, in order: {"tokens": valid rows, "kv": ndarray}.

        `tokens` are the n tokens of the prompt; `root` names the model that reads them, so that none gets pages of
        another. A model that must compute its last token itself leaves that one out.
        """
        if tokens.ndim != 1:
            raise MessageError(f"a prompt is tokens in one row, not an array of shape {tokens.shape}")
        for valid, kv in self._prefixes.longest(tokens.tolist(), root):
            yield {"tokens": valid, "kv": kv}

    def store(self, parent: bytes, tokens: list[int], kv: np.ndarray, root: bytes = ROOT_KEY) -> bytes | None:
        """Keeps the page of keys and values of 1 to 32 tokens that follow the page with the key `parent`.

        `parent` is `root`, the model's name, for the first page of a prompt. Returns the page's key; None if it is not
        kept, for instance since its parent is not held any more. Raises MessageError for tokens that make no page.
        """
        return self._prefixes.keep(parent, tokens, kv, root)

    def shed(self, pages: int) -> int:
        """Forgets that many pages, for a model that has no memory left for new ones; returns how many there were."""
        return self._prefixes.shed(pages)

    def describe(self) -> dict[str, int]:
        """What it holds, and how often that was of use: {name: number}."""
        return self._prefixes.stats()
