"""Whether the models answer, asked of their actors."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from .serving import Ask, ServingState
from .together import all_of

# Time for an actor to describe its model: it does so between two tokens.
_ANSWER_S = 1.0


class Readiness:
    """Asks each model's actor to describe it. Those who look at the same time share one look."""

    def __init__(self, ask: Ask, models: Mapping[str, str], state: ServingState) -> None:
        self.created: dict[str, int] = {}  # when a model's file was made, in seconds since 1970, once it is known
        self.described: dict[str, Mapping[str, Any]] = {}  # by model, of those that answered the last look
        self._ask = ask
        self._models = models
        self._state = state
        self._looking: asyncio.Task[list[str]] | None = None

    @property
    def started(self) -> bool:
        """Whether every model has answered once."""
        return self.created.keys() == self._models.keys()

    async def look(self) -> list[str]:
        """Why requests would fail now, each reason naming the actor; none where they would not."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        # Shielded: one who stops looking must not blind the others.
        reasons = await asyncio.shield(self._looking)
        draining = ["the server is draining: it ends what is in flight and takes no new requests"]
        return draining + reasons if self._state.draining else reasons

    async def _look(self) -> list[str]:
        self.described = {}
        reasons = await all_of(self._reason(model, actor) for model, actor in self._models.items())
        return [each for each in reasons if each]

    async def _reason(self, model: str, actor: str) -> str:
        try:
            async with asyncio.timeout(_ANSWER_S):
                described = await self._ask.call(f"{actor}.describe", timeout_s=_ANSWER_S)
            self.created[model] = int(described["created"])
            self.described[model] = described
        except TimeoutError:
            return f"actor '{actor}' (model '{model}') did not answer within {_ANSWER_S:g} s; see `slabwire top`"
        except Exception as error:
            return f"actor '{actor}' (model '{model}') failed: {type(error).__name__}: {error}"
        return ""
