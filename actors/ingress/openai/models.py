"""`GET /v1/models` and `GET /v1/models/{id}`, and which actor serves which model."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from ....runtime.spelling import did_you_mean
from ..probes.readiness import Readiness
from ..requests.exchange import Exchange
from ..requests.parameters import named
from ..requests.refusals import ModelNotFound


def actor_of(models: Mapping[str, str], model: str) -> str:
    """The actor that serves a model. Raises ModelNotFound, which says which models there are."""
    actor = models.get(model)
    if actor is None:
        listed = ", ".join(map(named, models))
        hint = did_you_mean(model[:100], models)
        raise ModelNotFound(f"The model {named(model)} does not exist here{hint}; this server has {listed}.", "model")
    return actor


class Models:
    """The two endpoints. `created` is when the model's file was made; until its actor has told, when this one began."""

    def __init__(self, models: Mapping[str, str], readiness: Readiness) -> None:
        self._models = models
        self._readiness = readiness
        self._began = int(time.time())

    async def list(self, exchange: Exchange) -> None:
        await self._know()
        await exchange.answer_json({"object": "list", "data": [self._entry(model) for model in self._models]})

    async def one(self, exchange: Exchange, model: str) -> None:
        actor_of(self._models, model)
        await self._know()
        await exchange.answer_json(self._entry(model))

    async def _know(self) -> None:
        if not self._readiness.started:
            await self._readiness.look()

    def _entry(self, model: str) -> dict[str, Any]:
        created = self._readiness.created.get(model, self._began)
        return {"id": model, "object": "model", "created": created, "owned_by": "slabwire"}
