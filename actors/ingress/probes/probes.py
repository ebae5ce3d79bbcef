"""Endpoints for those who watch the server: probes, its version, its metrics."""

from __future__ import annotations

import asyncio
from typing import Any

from .... import __version__
from ..requests.exchange import Exchange
from ..requests.metrics import Metrics
from .readiness import Readiness
from .supervisor import GraphMetrics


class Probes:
    """Liveness depends on the event loop alone, never on load or on other actors; readiness asks the models."""

    def __init__(self, readiness: Readiness, metrics: Metrics, graph: GraphMetrics | None) -> None:
        self._readiness = readiness
        self._metrics = metrics
        self._graph = graph
        if graph is not None:
            metrics.registry.register(graph)

    async def live(self, exchange: Exchange) -> None:
        await exchange.answer(b'{"status":"live"}')

    async def ready(self, exchange: Exchange) -> None:
        """200, or 503 with the reasons; each names the actor. How many replicas of the ingress do what goes with it."""
        reasons = await self._readiness.reasons()
        await _tell(exchange, "ready", reasons, replicas=self._readiness.replicas)

    async def started(self, exchange: Exchange) -> None:
        """200 once every model has answered, whatever becomes of it afterwards."""
        reasons = [] if self._readiness.started else await self._readiness.reasons()
        await _tell(exchange, "started", [] if self._readiness.started else reasons)

    async def version(self, exchange: Exchange) -> None:
        await exchange.answer_json({"name": "slabwire", "version": __version__})

    async def metrics(self, exchange: Exchange) -> None:
        if self._graph is None:
            await self._readiness.look()
        else:
            await asyncio.gather(self._readiness.look(), self._graph.look())
        self._metrics.show(self._readiness.described)
        text, kind = self._metrics.text(exchange.header(b"accept") or "")
        await exchange.answer(text, kind=kind)


async def _tell(exchange: Exchange, good: str, reasons: list[str], **more: Any) -> None:
    if reasons:
        await exchange.answer_json({"status": f"not {good}", "reasons": reasons, **more}, 503)
    else:
        await exchange.answer_json({"status": good, **more})
